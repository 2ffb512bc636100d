"""A centrally trained model to start a federation from."""

from pathlib import Path

import torch
from speechbrain.utils.logger import get_logger

from fed.arrays import set_arrays
from fedenhance.run_folder.checkpoints import Checkpoints, check

logger = get_logger(__name__)


def load_initial(brain, path):
    """Load the model before round 1, which was trained centrally.

    Arguments
    ---------
    brain : Brain
    path : str
        The output or save folder of another experiment (its newest checkpoint is
        taken), a folder of ``<module>.ckpt`` files, or one file with a state dict of
        all modules or of the only one that has weights. Modules that a folder lacks
        start as they are, with a warning.

    Raises
    ------
    ValueError
        When there is nothing to load.
    """
    path = Path(path)
    modules = {n: m for n, m in brain.modules.items() if m.state_dict()}
    if path.is_dir():
        load_folder(path, modules)
    elif path.is_file():
        weights = torch.load(path, map_location="cpu", weights_only=True)
        prefixes = tuple(f"{name}." for name in modules)
        if len(modules) == 1 and not all(key.startswith(prefixes) for key in weights):
            next(iter(modules.values())).load_state_dict(weights)
        else:
            set_arrays(brain, {k: w.numpy() for k, w in weights.items()})
    else:
        raise ValueError(f"initial_model: there is no file or folder '{path}'.")


def load_folder(path, modules):
    """Load modules from a checkpoint's folder, or from the newest one below."""
    for folder in (path, path / "save"):
        found = Checkpoints(folder).find_checkpoint()
        if found:
            check(found, "choose another initial_model")
            path = found.path
    files = {name: path / f"{name}.ckpt" for name in modules}
    missing = [name for name, file in files.items() if not file.exists()]
    if len(missing) == len(files):
        raise ValueError(f"initial_model: {path} has none of {sorted(files)}.")
    if missing:
        logger.warning("initial_model: %s lacks %s; they start anew.", path, missing)
    for name, module in modules.items():
        if name not in missing:
            weights = torch.load(files[name], map_location="cpu", weights_only=True)
            module.load_state_dict(weights)
