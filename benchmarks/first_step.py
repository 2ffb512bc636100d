"""Runs train.py up to its first training step, and says when it got how far.

    python -m benchmarks.first_step hparams/fedenhance.yaml --output_folder FOLDER

Prints one line of JSON: seconds of the wall clock and of the processor since the start
of this module, at the end of each phase. ``benchmarks.profiling`` runs it.
"""

import json
import os
import sys
import time

START = time.perf_counter()


def now():
    """Seconds of the wall clock, and of the processor, since the start."""
    return time.perf_counter() - START, time.process_time()


def main(argv):
    """Run train.py; leave after the first batch."""
    marks = {}
    import speechbrain  # noqa: F401

    marks["import speechbrain, torch"] = now()
    import train

    load = train.load_hparams

    def load_hparams(*arguments):
        marks["read the arguments"] = now()
        hparams = load(*arguments)
        marks["load the YAML, import flwr"] = now()
        prepare, datasets = hparams["prepare"], hparams["datasets"]

        def prepared():
            prepare()
            marks["check the preparation"] = now()

        def loaded(hparams):
            made = datasets(hparams)
            marks["load the manifests"] = now()
            return made

        hparams["prepare"], hparams["datasets"] = prepared, loaded
        return hparams

    train.load_hparams = load_hparams
    fit_batch = speechbrain.Brain.fit_batch

    def first(brain, batch):
        marks["set up the federation, read a batch"] = now()
        fit_batch(brain, batch)
        marks["first step"] = now()
        print(json.dumps(marks), flush=True)
        # Whatever training would do at its end is not asked for.
        os._exit(0)

    speechbrain.Brain.fit_batch = first
    train.main(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
