"""Trains a federation from the folder of any SpeechBrain recipe.

    python -m fed hparams.yaml [--key value ...]

The recipe's own modules are found first, as when its train.py is run.
"""

import sys

import speechbrain as sb

from based_yaml import load_hparams, save_hparams


def main(argv):
    """Load the YAML, train, and leave the results in its output folder."""
    hparams_file, run_opts, overrides = sb.parse_arguments(argv)
    hparams = load_hparams(hparams_file, overrides)
    if "federation" not in hparams:
        raise ValueError(f"{hparams_file} needs the keys 'brain' and 'federation'.")
    sb.create_experiment_directory(hparams["output_folder"])
    save_hparams(hparams_file, overrides, hparams["output_folder"])
    return hparams["federation"].run(hparams_file, overrides, run_opts, hparams)


if __name__ == "__main__":
    main(sys.argv[1:])
