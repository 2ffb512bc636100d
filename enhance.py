#!/usr/bin/env python
"""Enhance recordings with a trained model; ``python enhance.py --help`` says how."""

import sys

from fedenhance.__main__ import start

if __name__ == "__main__":
    start("enhance", sys.argv[1:])
