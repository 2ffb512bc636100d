"""Tests of fedenhance/training."""
