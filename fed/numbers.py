"""What a recipe counts outside of its modules' weights and buffers, as numbers."""

import numpy as np
import torch
from speechbrain import Brain
from speechbrain.utils.checkpoints import (
    DEFAULT_SAVE_HOOKS,
    get_default_hook,
    torch_save,
)
from speechbrain.utils.epoch_loop import EpochCounter
from torch.optim import Optimizer

from fed.loading import LOADERS


def stateful(brain):
    """Finds what has state that the modules' ``state_dict`` lacks.

    Such are schedulers, normalisations, moving averages of weights.

    Returns
    -------
    others : dict
        By name.
    counters : list of EpochCounter
    """
    kept = getattr(brain.checkpointer, "recoverables", {})
    found = {**vars(brain.hparams), **kept}
    for name, module in brain.modules.named_modules():
        found[f"modules.{name}"] = module
        own = {k: v for k, v in vars(module).items() if has_state(v)}
        found |= {f"modules.{name}.{key}": value for key, value in own.items()}
    unique = {id(value): (name, value) for name, value in reversed(found.items())}
    weights = {id(weight) for weight in tensors(brain.modules)}
    others, counters = {}, []
    for name, value in sorted(unique.values(), key=lambda pair: pair[0]):
        hook = get_default_hook(value, DEFAULT_SAVE_HOOKS)
        if isinstance(value, EpochCounter):
            counters.append(value)
        elif isinstance(value, (type, Brain, *LOADERS, Optimizer)):
            continue
        elif isinstance(value, torch.nn.Module) and hook is torch_save:
            # Of those apart from what is trained only what the recipe keeps changes.
            apart = weights.isdisjoint(map(id, tensors(value)))
            if name in kept and apart and value.state_dict():
                others[name] = value
        elif (hook is not None and hasattr(value, "__dict__")) or has_state(value):
            others[name] = value
    return others, counters


def tensors(module):
    """List the parameters and buffers of a module."""
    return [*module.parameters(), *module.buffers()]


def state_of(owner):
    """Tells what an object counts: its ``state_dict``, or else its attributes.

    A module whose checkpoints hold something else has that in its attributes.
    """
    by_torch = get_default_hook(owner, DEFAULT_SAVE_HOOKS) in (None, torch_save)
    return owner.state_dict() if by_torch and has_state(owner) else vars(owner)


def has_state(value):
    """Tell whether something gives and takes a ``state_dict``."""
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def set_state(owner, state):
    """Puts back what :func:`state_of` told, or a part of it."""
    old = state_of(owner)
    if old is vars(owner):
        old.update(state)
    else:
        owner.load_state_dict({**old, **state})


def numbers_of(owner):
    """Collects what of an object's state are numbers, or lists or tensors of it.

    Returns
    -------
    dict of numpy.ndarray
        By names without dots.

    Example
    -------
    >>> from speechbrain.nnet.schedulers import StepScheduler
    >>> numbers_of(StepScheduler(0.5, decay_drop=2))["initial_value"]
    array(0.5)
    """
    found = {}
    for key, value in state_of(owner).items():
        parts = {key: value}
        if is_tensors(value):
            parts = {f"{key}[{i}]": part for i, part in enumerate(value)}
        for name, part in parts.items():
            if isinstance(part, torch.Tensor):
                part = part.numpy(force=True)
            items = part if isinstance(part, (list, tuple)) else [part]
            if isinstance(part, np.ndarray) or all(map(is_number, items)):
                array = np.array(part)
                if array.dtype.kind in "iuf" and np.isfinite(array).all():
                    found[name.replace(".", "/")] = array
    return found


def moved(owners, since):
    """Collects the numbers of objects of which some have changed.

    Arguments
    ---------
    owners : dict
        Objects by name.
    since : dict of numpy.ndarray
        What each number was, by the names of object and number.

    Returns
    -------
    dict of dict
        By the name of the object; those that stayed what they were are left out.
    """
    found = {name: numbers_of(owner) for name, owner in owners.items()}
    return {
        name: numbers
        for name, numbers in found.items()
        if any(
            not np.array_equal(array, since.get(f"{name}.{key}"))
            for key, array in numbers.items()
        )
    }


def is_tensors(value):
    """Tell whether something is a list of tensors, such as the weights of an EMA."""
    return isinstance(value, list) and any(isinstance(v, torch.Tensor) for v in value)


def is_number(value):
    """Tell whether something is a number, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def set_numbers(owner, numbers):
    """Sets what :func:`numbers_of` collected."""
    state, new = state_of(owner), {}
    for name, array in numbers.items():
        key, _, place = name.replace("/", ".").partition("[")
        if place and is_tensors(new.setdefault(key, [*state.get(key, [])])):
            place = int(place[:-1])
            new[key][place] = like(array, new[key][place])
        else:
            new[key] = like(array, state.get(key))
    set_state(owner, new)


def like(array, old):
    """Makes of an array what stood in its place: a tensor, tuple, list or number."""
    if isinstance(old, torch.Tensor):
        return torch.from_numpy(array.copy()).to(old.device)
    return tuple(array.tolist()) if isinstance(old, tuple) else array.tolist()
