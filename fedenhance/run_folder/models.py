"""Trained models to start from: those that come along by name, others by folder."""

import torch
from speechbrain.utils.logger import get_logger

from fedenhance.run_folder.checkpoints import Checkpoints, check
from fedenhance.run_folder.shipped import find_model, shipped

logger = get_logger(__name__)


def load_initial(modules, model):
    """Load weights to start training from, which were trained centrally.

    Arguments
    ---------
    modules : dict of torch.nn.Module
    model : str
        The name of a model that comes along, or ``pretrained``; the output or save
        folder of another experiment (its best checkpoint is taken or, where none tells,
        the newest); a folder of
        ``<module>.ckpt`` files; or one file with a state dict of all modules or of the
        only one that has weights. Modules that a folder lacks start as they are, with a
        warning.

    Raises
    ------
    ValueError
        When there is nothing to load, or it is of another network.
    """
    path = find_model(model)
    modules = {n: m for n, m in modules.items() if m.state_dict()}
    if path.is_dir():
        load_folder(path, modules)
    elif path.is_file():
        weights = torch.load(path, map_location="cpu", weights_only=True)
        prefixes = tuple(f"{name}." for name in modules)
        if len(modules) == 1 and not all(key.startswith(prefixes) for key in weights):
            (module,) = modules.values()
        else:
            module = torch.nn.ModuleDict(modules)
        load_weights(module, weights, path)
    else:
        raise ValueError(
            f"initial_model: there is no file or folder '{model}', and those that come "
            f"along are {', '.join(shipped()) or 'none'}"
        )


def load_folder(path, modules):
    """Load modules from a checkpoint's folder, or from the best one below."""
    for folder in (path, path / "save"):
        kept = Checkpoints(folder)
        found = kept.find_best() or kept.find_checkpoint()
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
            load_weights(module, weights, files[name])


def load_weights(module, weights, path):
    """Load a state dict; say what of it does not fit.

    Arguments
    ---------
    module : torch.nn.Module
    weights : dict of torch.Tensor
    path : Path
        Named in the message.

    Raises
    ------
    ValueError
    """
    own = module.state_dict()
    needed = {name for name, tensor in own.items() if tensor.is_floating_point()}
    wrong = [f"it lacks {name}" for name in sorted(needed - weights.keys())]
    wrong += [f"it has {name} too" for name in sorted(weights.keys() - own.keys())]
    wrong += [
        f"its {name} is {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"initial_model: {path} is of another network than this experiment's "
            f"(models, or --models, must be those that it was trained with): "
            f"{'; '.join(wrong[:3])}{more}"
        )
    module.load_state_dict(weights, strict=False)
