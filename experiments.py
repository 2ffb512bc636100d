#!/usr/bin/env python
"""Train the experiments of a list; ``python experiments.py --help`` says how."""

import sys

from fedenhance.__main__ import start

if __name__ == "__main__":
    start("experiments", sys.argv[1:])
