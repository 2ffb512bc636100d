#!/usr/bin/env python
"""Train the experiment of a YAML file: federated if it says so, else centrally.

    python train.py hparams/fedenhance.yaml --p_supervised 0.5

Every top-level key of the file can be overridden on the command line.
"""

import difflib
import sys

import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml


def load_experiment(hparams_file, overrides):
    """Load a YAML file; complain about a key that it does not have.

    Arguments
    ---------
    hparams_file : str
    overrides : str
        YAML, as ``speechbrain.parse_arguments`` returns it.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        Naming the unknown key.
    """
    with open(hparams_file, encoding="utf-8") as file:
        text = file.read()
    keys = _keys(text)
    for key in _keys(overrides):
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{hparams_file} has no key {key}{hint}")
    with open(hparams_file, encoding="utf-8") as file:
        return load_hyperpyyaml(file, overrides)


def _keys(text):
    """Top-level keys of a YAML text."""
    from ruamel.yaml import YAML

    node = YAML().compose(text)
    return [] if node is None else [key.value for key, _ in node.value]


def train_centrally(hparams, run_opts, datasets):
    """Fit the Brain to all training data and load its best checkpoint."""
    brain = hparams["brain"](
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    if not run_opts.get("test_only", False):
        brain.fit(
            hparams["epoch_counter"],
            datasets["train"],
            datasets["valid"],
            train_loader_kwargs=dict(hparams["train_dataloader_opts"]),
            valid_loader_kwargs=dict(hparams["valid_dataloader_opts"]),
        )
    return brain


def main(argv):
    """Run the experiment of a command line.

    Arguments
    ---------
    argv : list of str
        YAML file, then overrides and SpeechBrain's run options.

    Returns
    -------
    speechbrain.Brain
        With the best model, tested.
    """
    hparams_file, options, overrides = sb.parse_arguments(argv)
    run_opts = {name: options[name] for name in options.overridden_args}
    hparams = load_experiment(hparams_file, overrides)
    sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)
    if hparams.get("prepare"):
        sb.utils.distributed.run_on_main(hparams["prepare"])
    federation = hparams.get("federation")
    if federation:
        brain = federation.run(hparams_file, overrides, run_opts, hparams)
        datasets = federation.datasets(hparams)
    else:
        datasets = hparams["datasets"](hparams)
        brain = train_centrally(hparams, run_opts, datasets)
    brain.evaluate(
        datasets["test"],
        max_key=hparams.get("maximize"),
        min_key=hparams.get("minimize"),
        test_loader_kwargs=dict(hparams["test_dataloader_opts"]),
    )
    for write in hparams.get("results", []):
        write(brain, datasets, hparams)
    return brain


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ImportError, OSError, ValueError) as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(f"train.py: {error} (--debug shows where)")
