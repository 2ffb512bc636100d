"""Tests of fedenhance/data."""
