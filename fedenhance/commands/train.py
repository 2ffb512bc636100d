"""Train the experiment of a YAML file: federated if it says so, else centrally.

    python train.py hparams/fedenhance.yaml --p_supervised 0.5

Every top-level key of the file can be overridden on the command line. A folder belongs
to one experiment: the same command goes on with what was interrupted, another one is
refused there. --restart removes what a run left in its folder; --traceback shows where
an error comes from.
"""

import re
import sys
from functools import partial

import speechbrain as sb
from speechbrain.utils.distributed import get_local_rank, run_on_main
from speechbrain.utils.logger import get_logger

from fedenhance.based_yaml import build, load_hparams
from fedenhance.data.available import check_device
from fedenhance.deploy.description import vouch
from fedenhance.deploy.trained import include_network
from fedenhance.recipes.preparation import fixed
from fedenhance.run_folder.best import best_by
from fedenhance.run_folder.environment import write_environment
from fedenhance.run_folder.models import load_initial
from fedenhance.run_folder.record import claimed, digests, is_used
from fedenhance.training.quiet import quieten_setup
from fedenhance.training.settings import read_command

logger = get_logger(__name__)


def train(hparams, run_opts, datasets):
    """Fit the Brain, by the federation if there is one; return it."""
    federation = hparams.get("federation")
    brain = build(hparams, run_opts, **({"checkpointer": None} if federation else {}))
    if hparams.get("initial_model") and not federation:  # a federation loads it itself
        load_initial(brain.modules, hparams["initial_model"])
    fit = partial(federation.fit, brain, datasets=datasets) if federation else brain.fit
    fit(
        hparams.get("epoch_counter"),
        datasets.get("train"),  # real clients have this alone, their server the others
        datasets.get("valid"),
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
    if get_local_rank() is not None:
        raise ValueError(
            "torchrun is not supported: use python, and one device (--device); "
            "runtime: ray trains clients on several"
        )
    quieten_setup()
    command = read_command(argv)
    if start := command.values.get("start"):
        given = re.findall(r"^\w+", command.overrides, flags=re.MULTILINE)
        command.overrides += f"\n{include_network(start, given)}"
    check_device(command.run_opts.get("device"))
    if command.run_opts.get("test_only") and (command.restart or not is_used(command)):
        raise ValueError(f"{command.folder} holds no model that could be tested")
    with claimed(command) as claim:
        return run(command, claim)


def run(command, claim):
    """Run an experiment in the folder that was claimed for it."""
    run_opts = {"noprogressbar": not sys.stderr.isatty(), **command.run_opts}
    hparams = load_hparams(command.hparams_file, command.overrides)
    sb.create_experiment_directory(str(command.folder), save_env_desc=False)
    run_on_main(write_environment, [command.folder])
    run_on_main(vouch, [command.folder])
    if hparams.get("prepare"):
        with fixed(claim.refuse if claim.trained else None):
            run_on_main(hparams["prepare"])
    claim.check_data(digests(hparams), hparams.get("manifest_folder"))
    datasets = hparams["datasets"](hparams)
    claim.check_splits(datasets)
    brain = train(hparams, run_opts, datasets)
    if "test" not in datasets:  # the server of real machines may have none
        logger.info(
            "Trained, and not tested: test_csv is null. Where there are test data, "
            "evaluate.py %s --test_mixtures FILE scores the model.",
            command.folder,
        )
        return brain
    way, key = best_by(hparams)
    brain.evaluate(
        datasets["test"],
        **{f"{way}_key": key},
        test_loader_kwargs=dict(hparams["test_dataloader_opts"]),
    )
    for write in hparams.get("results", []):
        write(brain, datasets, hparams)
    return brain
