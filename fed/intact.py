"""A client may fail in any way, and the next one finds the Brain as it was."""

import copy
from contextlib import contextmanager
from enum import Enum
from numbers import Number

import torch

PARTS = ("_modules", "_parameters", "_buffers")
KEPT = ("modules", "hparams", "checkpointer", "device")
"""Attributes of a Brain that a recipe may use and not replace."""


@contextmanager
def intact(brain):
    """Give the next client the Brain that this one had.

    What training changes is set anew for each client. Here are watched its structure:
    the class, the modules, the names, shapes and types of weights and buffers, and
    what the federation has set. If a client fails, all attributes are put back.

    Arguments
    ---------
    brain : Brain
        In a federation.

    Raises
    ------
    ValueError
        When a client has altered one of these; they are put back first.
    """
    before = Snapshot(brain)
    try:
        yield
    except BaseException as error:
        altered = before.put_back(failed=True)
        if altered and not isinstance(error, KeyboardInterrupt):
            then = f"{type(error).__name__}: {error}"
            raise ValueError(f"it altered the Brain: {altered}; then {then}") from error
        raise
    if altered := before.put_back():
        raise ValueError(f"it altered the Brain: {altered}")


def plain_data(brain):
    """Copy the lists, dicts and sets of plain data that a recipe has given its Brain.

    What a client collects there, such as the scores of its examples, is not for others.

    Returns
    -------
    dict
        By attribute.
    """
    found = vars(brain).items()
    containers = {k: v for k, v in found if isinstance(v, (dict, list, set))}
    return {k: copy.deepcopy(v) for k, v in containers.items() if is_plain(v)}


def is_plain(value):
    """Tell whether something is text, a number, or consists of such.

    Example
    -------
    >>> is_plain({"a": [1, 2.0, None]}), is_plain([object()])
    (True, False)
    """
    if isinstance(value, dict):
        return all(map(is_plain, (*value, *value.values())))
    if isinstance(value, (list, tuple, set)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (str, Number, Enum))


class Snapshot:
    """What a Brain consists of, but for the values of its weights.

    Arguments
    ---------
    brain : Brain
    """

    def __init__(self, brain):
        self.brain = brain
        self.kind = type(brain)
        self.own, self.hparams = dict(vars(brain)), dict(vars(brain.hparams))
        self.modules = [(m, parts_of(m)) for m in brain.modules.modules()]
        self.structure = structure(brain.modules)

    def put_back(self, failed=False):
        """Put back what was altered, or everything after a failure.

        Returns
        -------
        str
            What was altered; empty if nothing was.
        """
        brain, own, before = self.brain, self.own, self.structure
        altered = [name for name in KEPT if vars(brain).get(name) is not own.get(name)]
        altered += ["class"] if type(brain) is not self.kind else []
        brain.__class__ = self.kind
        vars(brain).update({name: own[name] for name in altered if name in own})
        now = structure(brain.modules)
        names = before.keys() | now.keys()
        altered += sorted(name for name in names if before.get(name) != now.get(name))
        if failed or altered:
            for owner, attributes in ((brain, own), (own["hparams"], self.hparams)):
                vars(owner).clear()
                vars(owner).update(attributes)
            for module, noted in self.modules:
                put_back_parts(module, *noted)
            put_back_kinds(before, brain.modules)
        return ", ".join(altered[:5])


def structure(modules):
    """Tell the class of each module, and the kind of each weight and buffer."""
    found = {}
    for name, module in modules.named_modules():
        found[name] = type(module)
        parts, passing = vars(module), module._non_persistent_buffers_set
        for key, value in (parts["_parameters"] | parts["_buffers"]).items():
            if value is not None and key not in passing:
                found[f"{name}.{key}"] = value.shape, value.dtype, value.device
    return found


def parts_of(module):
    """Note what a module consists of, and not the values of its weights."""
    parts = {name: dict(vars(module)[name]) for name in PARTS}
    weights = parts["_parameters"].values()
    trained = [(w, w.requires_grad) for w in weights if w is not None]
    return type(module), parts, trained


def put_back_parts(module, kind, parts, trained):
    """Make a module consist of what was noted."""
    module.__class__ = kind
    for name, members in parts.items():
        vars(module)[name].clear()
        vars(module)[name].update(members)
    for weight, requires_grad in trained:
        weight.requires_grad_(requires_grad)


def put_back_kinds(before, root):
    """Give weights and buffers their shapes and types; values are set per client."""
    for name, tensor in root.state_dict(keep_vars=True).items():
        if name in before:
            shape, dtype, device = before[name]
            if (tensor.shape, tensor.dtype, tensor.device) != before[name]:
                tensor.data = torch.zeros(shape, dtype=dtype, device=device)
