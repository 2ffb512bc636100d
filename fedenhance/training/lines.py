"""What a run prints: a line a round, for people."""

import re

from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.train_logger import FileTrainLogger
from tqdm import tqdm

UNITS = {"si_sdr|snr": "dB", "WER|CER": "%", "hours": "h", "seconds": "s"}
"""Beginning of a metric's name -> its unit."""


def aligned(meta, train_stats=None, valid_stats=None, test_stats=None):
    """One line on a round or an epoch, aligned with those before and after it.

    Arguments
    ---------
    meta, train_stats, valid_stats, test_stats : dict
        As for ``log_stats`` of SpeechBrain's loggers. Of training there is the loss, of
        validation what was measured; a test is told alone.

    Returns
    -------
    str

    Example
    -------
    >>> row = {"round": 7, "clients": 2, "failures": 0, "seconds": 12.34, "hours": 0.1}
    >>> print(aligned(row, {"loss": -3.2}, {"loss": -4.0, "si_sdri_1": 2.5}))
    round   7 |   12.3 s |  2 clients | train loss   -3.20 | valid si_sdri_1    2.50 dB
    """
    parts = [f"{key} {meta[key]:>3}" for key in ("round", "epoch") if key in meta]
    parts += [f"{meta[key]:>6.1f} s" for key in ("seconds",) if key in meta]
    parts += [f"{meta[key]:>2} {key}" for key in ("clients",) if key in meta]
    parts += [f"{meta[key]} failures" for key in ("failures",) if meta.get(key)]
    if train_stats and "loss" in train_stats:
        parts.append(f"train {quantity('loss', train_stats['loss'])}")
    measured = {} if parts else {"test": test_stats}
    for stage, stats in ({"valid": valid_stats} | measured).items():
        told = [name for name in stats or {} if name != "loss"] or list(stats or {})
        if told:
            values = ", ".join(quantity(name, stats[name]) for name in told)
            parts.append(f"{stage} {values}")
    return " | ".join(parts)


def quantity(name, value):
    """Name a value with its unit.

    Example
    -------
    >>> quantity("si_sdri_1", 2.5), quantity("WER", 31.0), quantity("skipped", 0)
    ('si_sdri_1    2.50 dB', 'WER   31.00 %', 'skipped 0')
    """
    unit = next((u for key, u in UNITS.items() if re.match(key, name)), "")
    text = f"{value:7.2f}" if isinstance(value, float) else str(value)
    return f"{name} {text} {unit}".rstrip()


class Lines(FileTrainLogger):
    """SpeechBrain's FileTrainLogger, which prints one aligned line of what it writes.

    Arguments
    ---------
    save_file : str
        For programs to read.
    precision : int
        Decimal places there.
    """

    def log_stats(
        self, stats_meta, train_stats=None, valid_stats=None, test_stats=None, **options
    ):
        """Write to the file, and print the line."""
        stats = stats_meta, train_stats, valid_stats, test_stats
        super().log_stats(*stats, **{**options, "verbose": False})
        if if_main_process():
            tqdm.write(aligned(*stats))
