"""Keeps out of logs what SpeechBrain says each time, from its imports on."""

import logging
import re

CHATTER = re.compile(
    "Run option|Gradscaler|Using (training|evaluation) precision|Beginning experiment|"
    "Applied quirks|Excluded quirks|torchvision is not available|Going into epoch|"
    "Saved an end-of-epoch checkpoint|Deleted checkpoint"
)
"""How lines begin that SpeechBrain logs of each set-up, epoch and checkpoint."""

PARTS = ("quirks", "train_logger", "epoch_loop", "checkpoints")


def quieten_setup():
    """Filter the chatter; before any of it is said."""
    for name in ("core", *(f"utils.{part}" for part in PARTS)):
        logging.getLogger(f"speechbrain.{name}").addFilter(is_news)


def is_news(record):
    """Tell whether a line of the log says more than that all goes as always.

    Example
    -------
    >>> is_news(logging.makeLogRecord({"msg": "Gradscaler enabled: `False`"}))
    False
    """
    return not CHATTER.match(str(record.msg))
