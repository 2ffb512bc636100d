"""Runs train.py up to its first training step, and says when it got how far.

    python -m benchmarks.first_step hparams/fedenhance.yaml --output_folder FOLDER

Prints one line of JSON: seconds of the wall clock and of the processor since the start
of this module, at the end of each phase. ``benchmarks.start`` runs it.
"""

import json
import os
import sys
import time

START = time.perf_counter()


MARKS = {}


def mark(phase):
    """Note seconds of the wall clock, and of the processor, at the end of a phase."""
    MARKS[phase] = time.perf_counter() - START, time.process_time()


def marked(function, phase):
    """Make a function note that it is done."""

    def call(*arguments):
        result = function(*arguments)
        mark(phase)
        return result

    return call


def main(argv):
    """Run train.py; leave after the first batch."""
    from fedenhance.__main__ import importing

    with importing():
        import speechbrain

        mark("import speechbrain, torch")
        from fedenhance.commands import train

    load, fit_batch = train.load_hparams, speechbrain.Brain.fit_batch

    def load_hparams(*arguments):
        mark("read the arguments")
        hparams = load(*arguments)
        mark("load the YAML, import flwr")
        hparams["prepare"] = marked(hparams["prepare"], "check the preparation")
        hparams["datasets"] = marked(hparams["datasets"], "load the manifests")
        return hparams

    def first(brain, batch):
        mark("set up the federation, read a batch")
        fit_batch(brain, batch)
        mark("first step")
        print(json.dumps(MARKS), flush=True)
        # Whatever training would do at its end is not asked for.
        os._exit(0)

    train.load_hparams, speechbrain.Brain.fit_batch = load_hparams, first
    train.main(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
