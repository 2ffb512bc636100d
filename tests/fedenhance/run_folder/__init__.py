"""Tests of run_folder/."""
