"""What a run leaves in its folder, to be compared with what another one leaves."""

import hashlib
import re

import torch
from speechbrain.utils.checkpoints import ckpt_recency

from fedenhance.data.tables import read_table
from fedenhance.run_folder.checkpoints import Checkpoints, is_archive
from fedenhance.run_folder.states import load

LOGS = {"log.txt", "env.log", "train.py", ".lock", ".origin"}
"""What a run says while it runs, and what is noted of where."""

WHEN = re.compile(rb"(unixtime|seconds): [^,\n]*|^# Generated.*", re.MULTILINE)


def left_by(folder):
    """Digest all that a run leaves, but when and where, and logs for people.

    Arguments
    ---------
    folder : Path

    Returns
    -------
    dict
        Name of each file -> digest of what it holds. Checkpoints, which are called
        after the time, are counted from the oldest. A line that a log has twice, as its
        round or epoch was trained again, counts once.
    """
    names, state = {}, folder / "save/federation.pt"
    if state.parent.is_dir():
        saved = sorted(Checkpoints(state.parent).list_checkpoints(), key=ckpt_recency)
        names = {c.path.name: f"checkpoint {i}" for i, c in enumerate(saved)}
    if state.exists():
        names[load(state)["identity"]] = "run"
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_file() and name not in LOGS:
            for old, new in names.items():
                name = name.replace(old, new)
            found[name] = digest(content(path, folder))
    return found


def content(path, folder):
    """What a file of a run holds, without when and where."""
    if path.name in ("rounds.csv", "clients.csv"):
        return [{**row, "seconds": 0} for row in read_table(path)]
    if path.name == "federation.pt":
        kept = load(path) | {"identity": 0}
        return kept | {"rows": [{**row, "seconds": 0} for row in kept["rows"]]}
    if path.suffix in (".pt", ".ckpt") and is_archive(path):
        return torch.load(path, weights_only=True)
    lines = WHEN.sub(b"", path.read_bytes().replace(bytes(folder), b""))
    if path.name == "hyperparams.yaml":
        return lines.split()  # where lines are broken depends on where it is
    return [*dict.fromkeys(lines.splitlines())]


def digest(value):
    """Digest a tree of plain values and tensors."""
    if isinstance(value, dict):
        value = [(str(key), digest(part)) for key, part in value.items()]
    elif isinstance(value, (list, tuple)):
        value = list(map(digest, value))
    elif hasattr(value, "tobytes"):
        value = value.dtype, value.shape, value.tobytes()
    elif isinstance(value, torch.Tensor):
        return digest(value.numpy())
    return hashlib.sha256(repr(value).encode()).hexdigest()
