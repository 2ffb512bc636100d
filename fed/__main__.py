"""``python -m fed train.py train.yaml`` trains a recipe with its federation."""

import sys
import traceback
from pathlib import Path

from fed.words import parse
from fedenhance.run_folder import arguments

OURS = Path(__file__).parent, Path(arguments.__file__).parents[1]
"""Folders of code whose errors say what to do; others show where they come from."""


def main():
    """Run the command of this process; what is refused is said in a line."""
    try:
        parse(sys.argv[1:])
        from fed.command import run

        run(sys.argv[1:])
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if arguments.TRACEBACK in sys.argv or not any(
            map(raised_in.is_relative_to, OURS)
        ):
            raise
        sys.exit(f"fed: {arguments.in_a_line(error)}")


if __name__ == "__main__":
    main()
