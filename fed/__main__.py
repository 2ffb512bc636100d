"""Trains a federation from the folder of any SpeechBrain recipe.

    python -m fed hparams.yaml [--key value ...]

The recipe's own modules are found first, as when its train.py is run.
"""

import sys

import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml


def main(argv):
    """Load the YAML, train, and leave the results in its output folder."""
    hparams_file, run_opts, overrides = sb.parse_arguments(argv)
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    if "federation" not in hparams:
        raise ValueError(f"{hparams_file} needs the keys 'brain' and 'federation'.")
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    return hparams["federation"].run(hparams_file, overrides, run_opts, hparams)


if __name__ == "__main__":
    main(sys.argv[1:])
