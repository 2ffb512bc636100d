"""``python -m fed train.py train.yaml`` trains a recipe with its federation."""

import sys
import traceback
from pathlib import Path

from fed.command import run


def main():
    """Run the command of this process; what fed refuses is said in a line."""
    try:
        run(sys.argv[1:])
    except (OSError, RuntimeError, ValueError) as error:
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        if Path(raised_in).parent.name not in ("fed", "run_folder"):
            raise
        sys.exit(f"fed: {error}")


if __name__ == "__main__":
    main()
