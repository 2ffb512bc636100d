"""Tests of fedenhance/reports."""
