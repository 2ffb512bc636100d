"""Tests of local_modules."""
