"""Tests of fedenhance/deploy."""
