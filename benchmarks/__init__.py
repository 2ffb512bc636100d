"""Scripts that measure; their results are what the README quotes."""

from pathlib import Path

OUT = Path("results/benchmarks")
"""Where tables go."""
COMMITTED = Path("benchmarks/results")
