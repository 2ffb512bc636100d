"""Scripts that measure; their results are what the README quotes."""
