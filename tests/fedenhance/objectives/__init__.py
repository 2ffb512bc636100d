"""Tests of fedenhance/objectives."""
