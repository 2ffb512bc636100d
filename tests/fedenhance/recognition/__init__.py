"""Tests of fedenhance/recognition."""
