"""The trained models that come with the package, by name."""

from pathlib import Path

PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
"""Their folder; its name stands for the first of them."""


def shipped():
    """Name the models that come with the package; the first is taken by default."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/hyperparams.yaml"))


def find_model(name=None):
    """Find a trained model.

    Arguments
    ---------
    name : str or Path, optional
        A path or, where there is nothing, the name of a model that comes along.
        Without a name, or as ``pretrained``, it is the first of those.

    Returns
    -------
    Path
        As given, where there is neither.

    Example
    -------
    >>> find_model("pretrained").name, find_model("nowhere").exists()
    ('gtcrn', False)
    """
    path, known = Path(name or PRETRAINED.name), shipped()
    if not known or (name is not None and path.exists()):
        return path
    name = known[0] if path.name == PRETRAINED.name else path.as_posix()
    return PRETRAINED / name if name in known else path
