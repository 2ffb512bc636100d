"""Tests of fedenhance."""
