#!/usr/bin/env python
"""Score a trained model, or compare two; ``python evaluate.py --help`` says how."""

import sys

from fedenhance.__main__ import start

if __name__ == "__main__":
    start("evaluate", sys.argv[1:])
