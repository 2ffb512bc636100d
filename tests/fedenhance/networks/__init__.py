"""Tests of fedenhance/networks."""
