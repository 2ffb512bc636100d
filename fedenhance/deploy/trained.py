"""A finished run's folder, or its package, made into a separator again."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML

from fedenhance.deploy.renamed import current_names
from fedenhance.networks.scaling import separate
from fedenhance.run_folder.checkpoints import Checkpoints, check
from fedenhance.training.settings import check_device

#: What inference and evaluation need beside plain values. All else that names objects
#: is for training, and is not made.
NEEDED = ("separator", "modules", "consistency", "mixing", "prepare", "pretrainer")


class Trained(NamedTuple):
    """The best model of a run.

    Calling it separates mixtures ``(batch, time)`` into ``(batch, source, time)``,
    speech first.
    """

    separator: torch.nn.Module
    consistency: Any
    sample_rate: int
    hparams: dict

    @torch.inference_mode()
    def __call__(self, mixture):
        """Separate mixtures at ``sample_rate``, of any level and length."""
        return separate(self.separator, mixture, self.consistency)

    @property
    def num_sources(self):
        """How many sources a mixture is separated into."""
        device = next(self.separator.parameters()).device
        return self(torch.zeros(1, self.sample_rate, device=device)).shape[1]


def load_trained(folder, device="cpu"):
    """Load the model that was best on validation.

    Arguments
    ---------
    folder : str or Path
        Output folder of ``train.py``: it has ``hyperparams.yaml`` and ``save/``. It may
        have been moved. Or a package of ``fedenhance.deploy.packaging``.
    device : str
        Where the model goes.

    Returns
    -------
    Trained

    Raises
    ------
    FileNotFoundError
        If the folder is not one of a finished run.
    ValueError
        If there is no such device.
    """
    check_device(device)
    folder = Path(folder)
    path = folder / "hyperparams.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not the output folder of train.py: it has no {path.name}"
        )
    hparams = load_hyperpyyaml(write_yaml(read_experiment(path)))
    if "pretrainer" in hparams:
        hparams["pretrainer"].collect_files(default_source=str(folder))
        hparams["pretrainer"].load_collected()
    else:
        load_best(hparams["modules"], folder / "save")
    for module in hparams["modules"].values():
        module.to(device).eval()
    return Trained(
        hparams["modules"]["separator"],
        hparams.get("consistency"),
        hparams["sample_rate"],
        hparams,
    )


def read_experiment(path):
    """Read what inference and evaluation need of an experiment, names up to date.

    Arguments
    ---------
    path : Path
        ``hyperparams.yaml`` of a run, whose references are resolved, or of a package.

    Returns
    -------
    dict
        Values with their tags; no object is made.
    """
    experiment = YAML().load(current_names(path.read_text(encoding="utf-8")))
    return {
        key: value
        for key, value in experiment.items()
        if key in NEEDED or not _names_objects(value)
    }


def _names_objects(value):
    if getattr(getattr(value, "tag", None), "value", None):
        return True
    parts = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and any(map(_names_objects, parts))


def write_yaml(values):
    """Return values that :func:`read_experiment` read as YAML, with their tags."""
    stream = io.StringIO()
    YAML().dump(values, stream)
    return stream.getvalue()


def load_best(modules, save_folder):
    """Load the checkpoint that was best on validation.

    Arguments
    ---------
    modules : dict
        Modules by name; those with weights are loaded.
    save_folder : Path

    Raises
    ------
    FileNotFoundError
        If the folder holds no checkpoint that is complete.
    DamagedFileError
        If it is not what was saved.
    """
    checkpoint = find_best(save_folder)
    if checkpoint is None:
        raise FileNotFoundError(
            f"{save_folder} holds no checkpoint: train.py has not finished a round or "
            "an epoch there"
        )
    check(checkpoint, "put it back as it was, or train anew")
    for name, module in modules.items():
        if module.state_dict():
            file = checkpoint.path / f"{name}.ckpt"
            weights = torch.load(file, map_location="cpu", weights_only=True)
            module.load_state_dict(weights)


def find_best(save_folder):
    """Find the checkpoint that was best on validation.

    A federation keeps that one alone. Centralised training keeps the newest as well:
    the best has the largest ``si_sdri`` or, without references, the least ``loss``.

    Arguments
    ---------
    save_folder : str or Path

    Returns
    -------
    speechbrain.utils.checkpoints.Checkpoint or None
    """
    if not Path(save_folder).is_dir():
        return None
    checkpointer = Checkpoints(save_folder)
    for options in ({"max_key": "round"}, {"max_key": "si_sdri"}, {"min_key": "loss"}):
        checkpoint = checkpointer.find_checkpoint(**options)
        if checkpoint is not None:
            return checkpoint
    return checkpointer.find_checkpoint()
