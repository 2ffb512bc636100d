"""A finished run's folder, or its package, made into a separator again."""

import io
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML

from fedenhance.data.available import check_device, require
from fedenhance.deploy.description import UntrustedError, check_names, is_own
from fedenhance.deploy.renamed import current_names, file_of
from fedenhance.networks.scaling import separate
from fedenhance.objectives.consistency import keep_some
from fedenhance.objectives.nearly_clean import share_of
from fedenhance.run_folder.shipped import find_model, shipped

NETWORK = ("separator", "modules", "consistency")
"""What inference needs beside plain values. All else that names objects is for training
and, with ``EVALUATION``, for evaluation; it is not made."""

EVALUATION = ("mixing", "prepare")

HUB = "hf:"
"""How names of models on Hugging Face begin: ``hf:user/model``."""


class Trained(NamedTuple):
    """The best model of a run.

    Calling it separates mixtures ``(batch, time)`` into ``(batch, source, time)``,
    speech first. A share ``dry`` of each mixture stays in the speech; if
    ``clean_above`` is a number, the share is that of
    :func:`fedenhance.objectives.nearly_clean.clean_share`.
    """

    separator: torch.nn.Module
    consistency: Any
    sample_rate: int
    hparams: dict
    dry: float = 0.0
    clean_above: float | None = None

    @torch.inference_mode()
    def __call__(self, mixture):
        """Separate mixtures at ``sample_rate``, of any level and length."""
        mixture = mixture.to(self.device)
        estimates = separate(self.separator, mixture, self.consistency)
        dry = self.dry
        if self.clean_above is not None:
            known = self.sample_rate, self.clean_above
            dry = share_of(estimates[:, 0], mixture, *known)
        elif not dry:
            return estimates
        return keep_some(estimates, mixture, dry)

    def keeping(self, dry):
        """Return the model with another share of the mixture in its speech.

        Arguments
        ---------
        dry : float or None
            None: as it is.
        """
        return self if dry is None else self._replace(dry=dry, clean_above=None)

    @property
    def device(self):
        """torch.device: where it is, and its estimates are."""
        return next(self.separator.parameters()).device

    @property
    def num_sources(self):
        """How many sources a mixture is separated into."""
        return self(torch.zeros(1, self.sample_rate)).shape[1]

    def enhance(self, audio, sample_rate, **options):
        """Take the noise out of a signal; see ``enhancement.enhance_signal``."""
        from fedenhance.deploy.enhancement import enhance_signal

        return enhance_signal(self, audio, sample_rate, **options)


def is_model(name):
    """Tell whether a word names a model: a folder of one, one shipped, one on the hub.

    Example
    -------
    >>> is_model("hf:user/model"), is_model("noisy.wav")
    (True, False)
    """
    folder = find_model(name)
    there = any((folder / file).exists() for file in ("hyperparams.yaml", "run.json"))
    return there or str(name).startswith(HUB)


def locate(name=None):
    """Find the folder of a model.

    Arguments
    ---------
    name : str or Path, optional
        A folder, the name of a model that comes with the package, or ``hf:user/model``,
        which is downloaded. By default the first that comes with the package.

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        Saying which models come with the package.
    """
    if str(name).startswith(HUB):
        return download(str(name))
    folder, known = find_model(name), shipped()
    if folder.exists() and (known or name is not None):
        return folder
    told = f"those that come along: {', '.join(known)}" if known else "none comes along"
    raise FileNotFoundError(
        f"there is no model {name} ({told}); name an output folder of train.py"
        if name
        else f"which model? Name an output folder of train.py ({told})"
    )


def download(name):
    """Download a model from Hugging Face, or find what was downloaded.

    Arguments
    ---------
    name : str
        ``hf:user/model``

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        If there is no such model, or it cannot be reached.
    ImportError
        If huggingface_hub is not installed.
    """
    require(f"the model {name}", "huggingface_hub")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name.removeprefix(HUB)))
    except (OSError, ValueError) as error:  # of the hub, of the network, of a name
        raise FileNotFoundError(
            f"{name} cannot be had from Hugging Face: {str(error).splitlines()[0]}"
        ) from error


def load_trained(folder, device="cpu", trust=False):
    """Load the model that was best on validation.

    Arguments
    ---------
    folder : str or Path
        Output folder of ``train.py``: it has ``hyperparams.yaml`` and ``save/``. It may
        have been moved. Or a package of ``fedenhance.deploy.packaging``, or what else
        :func:`locate` finds.
    device : str
        Where the model goes.
    trust : bool
        Whether it may run code that is not of fedenhance. What was trained on this
        machine may.

    Returns
    -------
    Trained

    Raises
    ------
    FileNotFoundError
        If the folder is not one of a finished run.
    ImportError
        Naming a module that the network needs.
    UntrustedError
        If it needs code that is not of fedenhance.
    ValueError
        If there is no such device, or the folder does not describe a model.
    """
    check_device(device)
    folder = locate(folder)
    path = folder / "hyperparams.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not the output folder of train.py: it has no {path.name}"
        )
    hparams = make(folder, NETWORK, trust)
    if "modules" not in hparams or "sample_rate" not in hparams:
        raise ValueError(f"{path} describes no model: it has no modules or sample_rate")
    if (folder / "separator.ckpt").exists():
        load_package(hparams, folder)
    else:
        load_best(hparams["modules"], folder / "save")
    for module in hparams["modules"].values():
        module.to(device).eval()
    return Trained(
        hparams["modules"]["separator"],
        hparams.get("consistency"),
        hparams["sample_rate"],
        hparams,
        clean_above=clean_above_of(hparams, path),
    )


def load_start(folder):
    """Load a model to train on from: it takes from nearly clean recordings, too."""
    return load_trained(folder).keeping(0.0)


def clean_above_of(hparams, path):
    """Read how clean recordings are that a model leaves as they are, in dB, or None."""
    number = hparams.get("clean_above")
    if number is None or (isinstance(number, int | float) and math.isfinite(number)):
        return number
    raise ValueError(f"{path}: clean_above is a number of dB, or null, not {number!r}")


def make(folder, keys, trust=False):
    """Make some of what an experiment names, and all its plain values.

    Arguments
    ---------
    folder : Path
        With ``hyperparams.yaml``.
    keys : tuple of str
        That may name objects.
    trust : bool
        See :func:`load_trained`.

    Returns
    -------
    dict
    """
    described = read_experiment(folder / "hyperparams.yaml", keys)
    try:
        check_names(described, folder)
    except UntrustedError:
        if not (trust or is_own(folder)):
            raise
        sys.path.append(str(folder))  # of a package, which carries modules of its user
    try:
        return load_hyperpyyaml(write_yaml(described))
    except ImportError as error:
        raise ImportError(
            f"{folder} cannot be loaded: {str(error).splitlines()[0]}. Install it, or "
            "call this where it can be imported"
        ) from error


def load_package(hparams, folder):
    """Load the weights of a package, or of a client's own model: tensors alone."""
    modules = {**hparams, **hparams["modules"]}
    for name in ("separator", "consistency"):
        if (file := folder / f"{name}.ckpt").exists():
            weights = torch.load(file, map_location="cpu", weights_only=True)
            modules[name].load_state_dict(weights)


def read_experiment(path, keys=NETWORK):
    """Read what inference and evaluation need of an experiment, names up to date.

    Arguments
    ---------
    path : Path
        ``hyperparams.yaml`` of a run, whose references are resolved, or of a package.
    keys : tuple of str
        That may name objects; of others there are plain values alone.

    Returns
    -------
    dict
        Values with their tags; no object is made.
    """
    experiment = YAML().load(current_names(path.read_text(encoding="utf-8")))
    return {
        key: value
        for key, value in experiment.items()
        if key in keys or not _names_objects(value)
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
    from fedenhance.run_folder.checkpoints import check

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

    A federation keeps that one alone. Centralised training keeps the newest as well,
    and notes by what the other is best. Older versions did not: there the best has the
    largest ``si_sdri``; without references the largest ``score``, or the least
    ``loss``.

    Arguments
    ---------
    save_folder : str or Path

    Returns
    -------
    speechbrain.utils.checkpoints.Checkpoint or None
    """
    from fedenhance.run_folder.checkpoints import Checkpoints

    if not Path(save_folder).is_dir():
        return None
    checkpointer = Checkpoints(save_folder)
    if best := checkpointer.find_best():
        return best
    for key in ("round", "si_sdri", "score", "loss"):
        options = {"min_key" if key == "loss" else "max_key": key}
        checkpoint = checkpointer.find_checkpoint(**options)
        if checkpoint is not None:
            return checkpoint
    return checkpointer.find_checkpoint()


def include_network(start, given=()):
    """Give an experiment the network of the trained model that it starts from.

    Arguments
    ---------
    start : str or Path
        Output folder of ``train.py`` with its ``package/``, or a package.
    given : container of str
        Keys that have other overrides.

    Returns
    -------
    str
        Overrides: ``models``, which has ``separator`` and ``consistency`` then,
        ``sample_rate``, and ``clean_above`` if it has one.

    Raises
    ------
    FileNotFoundError
        If there is no such model, or it has no package.
    UntrustedError
        If it needs code that is not of fedenhance, and was not trained here.
    ValueError
        If it has no separator.
    """
    path = (locate(start) / "hyperparams.yaml").resolve()
    if not path.is_file():
        raise FileNotFoundError(f"start: {start} is no trained model: no {path}")
    if (path.parent / "save").is_dir():
        path = path.parent / "package" / path.name
        if not path.is_file():
            raise FileNotFoundError(
                f"start: {start} has no package/: run python -m fedenhance package "
                f"{start} first"
            )
    described = read_experiment(path)
    if "separator" not in described:
        raise ValueError(f"start: {path} describes no separator: is it of train.py?")
    text = current_names(path.read_text(encoding="utf-8"))
    if not is_own(path.parent):
        check_names(described, path.parent)
        if described.keys() != YAML().load(text).keys():
            text = write_yaml(described)  # what else it names is not made
    keys = {"sample_rate", "clean_above"}.difference(given)
    known = {key: described[key] for key in keys if described.get(key) is not None}
    lines = [f"{key}: {json.dumps(value)}" for key, value in known.items()]
    file = file_of(text, path).as_posix()
    return "\n".join([f"models: !include:{file}", *lines, ""])
