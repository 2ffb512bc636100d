#!/usr/bin/env python
"""Draw the figures of the paper; ``python figures.py --help`` says how."""

import sys

from fedenhance.__main__ import start

if __name__ == "__main__":
    start("figures", sys.argv[1:])
