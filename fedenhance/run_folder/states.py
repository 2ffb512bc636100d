"""Files that a killed run goes on from: whole, checked, and free of programs."""

import pickle
from urllib.parse import quote

import numpy as np
import torch

from fedenhance.run_folder.checkpoints import check_archive
from fedenhance.run_folder.files import whole_file

SMALL = 1 << 16
"""Elements of a tensor that is joined with others, at most."""


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
    packed = pack(plain(state))
    with whole_file(path) as partial, open(partial, "wb") as file:
        torch.save(packed, file)


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
        return unpack(torch.load(path, map_location="cpu", weights_only=True))
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


def pack(state):
    """Join tensors of one type: reading a thousand small ones takes longer than a step.

    Large ones stay where they are, and so do sparse ones: joined, they would be in
    memory twice.

    Arguments
    ---------
    state : dict
        Of :func:`plain`.

    Returns
    -------
    dict
        ``joined``: one tensor a type; ``types``: which of them each joined tensor of
        the state is in; ``state``, in which their shapes stand for them.

    Example
    -------
    >>> pack({"w": torch.ones(2), "b": torch.zeros(1)})["joined"]
    [tensor([1., 1., 0.])]
    """
    parts, types = {}, []

    def without(value):
        if isinstance(value, dict):
            return {key: without(v) for key, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(map(without, value))
        if not isinstance(value, torch.Tensor):
            return value
        value = value.detach().cpu()
        if value.numel() > SMALL or value.layout != torch.strided:
            return value
        parts.setdefault(value.dtype, []).append(value.reshape(-1))
        types.append(list(parts).index(value.dtype))
        return value.shape

    shapes = without(state)
    return {
        "joined": [torch.cat(own) for own in parts.values()],
        "types": types,
        "state": shapes,
    }


def unpack(packed):
    """Give back what :func:`pack` got; what it did not pack stays as it is."""
    if packed.keys() != {"joined", "types", "state"}:
        return packed  # of a version that did not
    types, left = iter(packed["types"]), list(packed["joined"])

    def complete(value):
        if isinstance(value, torch.Size):
            kind = next(types)
            size = value.numel()
            part, left[kind] = left[kind][:size], left[kind][size:]
            return part.reshape(value)
        if isinstance(value, dict):
            return {key: complete(v) for key, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(map(complete, value))
        return value

    return complete(packed["state"])


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
