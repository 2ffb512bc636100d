"""``python -m fed train.py train.yaml`` trains a recipe with its federation."""

import sys

from fed.command import run


def main():
    """Run the command of this process."""
    run(sys.argv[1:])


if __name__ == "__main__":
    main()
