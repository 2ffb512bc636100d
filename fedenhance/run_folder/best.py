"""Which model is the best of a run."""


def best_by(hparams):
    """Tell by which statistic of validation a model is the best.

    Arguments
    ---------
    hparams : dict
        With ``maximize`` or ``minimize``, or neither.

    Returns
    -------
    way : str
        ``max`` or ``min``.
    key : str

    Raises
    ------
    ValueError
        If there are both.

    Example
    -------
    >>> best_by({"maximize": "valid_si_sdri"}), best_by({"maximize": None})
    (('max', 'si_sdri'), ('min', 'loss'))
    """
    given = {way: hparams.get(way) for way in ("maximize", "minimize")}
    if all(given.values()):
        raise ValueError("Give maximize or minimize, not both.")
    for way, key in given.items():
        if key:
            return way[:3], key.removeprefix("valid_")
    return "min", "loss"
