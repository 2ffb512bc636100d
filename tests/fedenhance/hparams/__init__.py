"""Tests of the YAML files."""
