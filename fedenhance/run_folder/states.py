"""Files that a killed run goes on from: whole, checked, and free of programs."""

import pickle
from urllib.parse import quote

import numpy as np
import torch

from fedenhance.run_folder.checkpoints import check_archive
from fedenhance.run_folder.files import whole_file


def save(path, state):
    """Save what a run goes on from: tensors and plain values, no objects.

    Arguments
    ---------
    path : Path
    state : dict
        Arrays and tensors, numbers, text, booleans, None, in dicts, lists and tuples.

    Raises
    ------
    TypeError
        Naming what is none of these.
    """
    state = plain(state)
    with whole_file(path) as partial, open(partial, "wb") as file:
        torch.save(state, file)


def load(path):
    """Load what :func:`save` saved; tensors come back as arrays.

    Raises
    ------
    DamagedFileError, ValueError
        Naming a file that has changed since, or that an older version made.
    """
    return with_arrays(load_tensors(path))


def load_tensors(path):
    """Load what :func:`save` saved; arrays come back as tensors."""
    check_archive(path, "put it back as it was, or start anew")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} may be of an older version, whose files could hold programs, and "
            "is not read: go on with that version, or start anew (the best model, in "
            "CKPT+..., can be used as before)"
        ) from error


def plain(value, place="state"):
    """Turn arrays into tensors; see that all else is plain.

    Raises
    ------
    TypeError
        Naming the place of what is not.

    Example
    -------
    >>> plain({"w": np.float32([1]), "lr": np.float64(0.5), 0: (None, "x")})
    {'w': tensor([1.]), 'lr': 0.5, 0: (None, 'x')}
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.require(value, requirements=["C", "W"]))
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {key: plain(v, f"{place}.{key}") for key, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(v, f"{place}.{i}") for i, v in enumerate(value))
    if not isinstance(value, (bool, int, float, str, type(None), torch.Tensor)):
        raise TypeError(f"{place} is a {type(value).__name__}, which is not saved")
    return value


def with_arrays(value):
    """Turn tensors into arrays."""
    if isinstance(value, dict):
        return {key: with_arrays(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(with_arrays, value))
    return value.numpy() if isinstance(value, torch.Tensor) else value


def file_name(text):
    """Turn any text into the name of a file or folder, and of no other place.

    Example
    -------
    >>> file_name("a/b"), file_name("..")
    ('a%2Fb', '%2E%2E')
    """
    name = quote(str(text), safe="")
    return name if name.strip(".") else name.replace(".", "%2E")
