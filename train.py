#!/usr/bin/env python
"""Train the experiment of a YAML file; ``python train.py --help`` says how."""

import sys

from fedenhance.__main__ import start

if __name__ == "__main__":
    start("train", sys.argv[1:])
