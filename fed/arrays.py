"""Arrays of a Brain by name, as messages and files hold them."""

import fnmatch
import functools
import io
import math

import numpy as np
import torch
from flwr.app import Array, ArrayRecord

NUMPY = Array(np.zeros(0)).stype


def get_arrays(brain):
    """Copies the weights and buffers of a Brain, by name.

    Returns
    -------
    dict of numpy.ndarray
    """
    state, arrays = brain.modules.state_dict(), {}
    for names in by_kind(state):
        flat = torch.cat([state[name].flatten() for name in names]).numpy(force=True)
        ends = np.cumsum([state[name].numel() for name in names])
        for name, part in zip(names, np.split(flat, ends[:-1]), strict=True):
            arrays[name] = part.reshape(state[name].shape)
    return {name: arrays[name] for name in state}


def by_kind(tensors):
    """Lists the names of tensors of one type and device together.

    These travel together: each way to or from a GPU waits for it.
    """
    kinds = {}
    for name, tensor in tensors.items():
        kinds.setdefault((tensor.dtype, tensor.device), []).append(name)
    return kinds.values()


def set_arrays(brain, arrays):
    """Loads weights and buffers into a Brain, by name.

    Arguments
    ---------
    brain : Brain
    arrays : dict of numpy.ndarray
        What is not floating point may be left out.

    Raises
    ------
    ValueError
        Naming the arrays that are missing, unknown or of another shape.
    """
    state = brain.modules.state_dict()
    wrong = [f"unknown {name}" for name in arrays if name not in state]
    for name, tensor in state.items():
        if name not in arrays:
            wrong += [f"missing {name}"] if tensor.is_floating_point() else []
        elif tuple(tensor.shape) != arrays[name].shape:
            shapes = f"{tuple(arrays[name].shape)} instead of {tuple(tensor.shape)}"
            wrong.append(f"{name} of shape {shapes}")
    if wrong:
        raise ValueError(f"Arrays do not fit the modules: {', '.join(wrong)}.")
    copy_into({name: state[name] for name in arrays}, arrays)


@torch.no_grad()
def copy_into(tensors, arrays):
    """Copies arrays into tensors of the same names."""
    for names in by_kind(tensors):
        device = tensors[names[0]].device
        flat = (as_tensor(np.ravel(arrays[name])) for name in names)
        if device.type == "cuda":
            sizes = [tensors[name].numel() for name in names]
            flat = torch.cat([*flat]).to(device).split(sizes)
        for name, part in zip(names, flat, strict=True):
            tensors[name].copy_(part.view(tensors[name].shape))


def as_tensor(array):
    """Looks at an array as a tensor, which needs what can be written to."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def to_record(arrays):
    """Packs numpy arrays for a message, as ``Array(array)`` would, but faster."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = pack(np.asarray(array))
    return record


def pack(array):
    """Packs one numpy array; its header is written once for all of its kind."""
    dtype, start = header(array.dtype, array.shape)
    return Array(dtype, array.shape, NUMPY, start + array.tobytes())


@functools.lru_cache(maxsize=4096)
def header(dtype, shape):
    """Writes what precedes the numbers in NumPy's format.

    Returns
    -------
    str
        The type's name.
    bytes

    Raises
    ------
    ValueError
        When the elements are Python objects, which would have to be pickled.
    """
    buffer, like = io.BytesIO(), np.empty(shape, dtype)
    np.save(buffer, like, allow_pickle=False)
    return str(dtype), buffer.getvalue()[: -like.nbytes or None]


def to_arrays(record):
    """Unpacks the arrays of a message."""
    return {name: array.copy() for name, array in view(record).items()}


def view(record):
    """Looks at the arrays of a message without copying or changing them.

    ``Array.numpy`` parses a header and copies; with some hundred arrays in a reply
    that is most of the time that averaging takes.

    Raises
    ------
    ValueError
        When the bytes are not what they claim to be.
    """
    arrays = {}
    for name, array in record.items():
        dtype = np.dtype(array.dtype)
        size = math.prod(array.shape) * dtype.itemsize
        start = len(array.data) - size
        if start < 0:
            raise ValueError(f"{name} is shorter than its shape says")
        if b"'fortran_order': False" in array.data[:start]:
            flat = np.frombuffer(array.data, dtype, offset=start)
            arrays[name] = flat.reshape(array.shape)
        else:
            arrays[name] = array.numpy()
    return arrays


def matching(names, patterns, key="local"):
    """Selects names by shell patterns, which a key of YAML gives.

    Raises
    ------
    ValueError
        Naming a pattern that selects nothing.

    Example
    -------
    >>> matching(["net.norm.bias", "net.conv.bias"], ["*.norm.*"])
    {'net.norm.bias'}
    """
    selected = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            some = ", ".join(sorted(names)[:3])
            raise ValueError(
                f"{key}: '{pattern}' matches none of {len(names)} weights, such as "
                f"{some}"
            )
        selected.update(found)
    return selected
