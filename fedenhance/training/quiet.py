"""Keeps the chatter of a set-up out of logs."""

import logging
import re

CHATTER = re.compile(
    "Run option|Gradscaler|Using (training|evaluation) precision|Beginning experiment|"
    "Applied quirks|Excluded quirks|torchvision is not available"
)
"""How lines begin that SpeechBrain logs of each set-up."""


def quieten_setup():
    """Keep out of all logs what SpeechBrain says each time, before it says it."""
    for name in ("core", "utils.quirks", "utils.train_logger"):
        logging.getLogger(f"speechbrain.{name}").addFilter(is_news)


def is_news(record):
    """Tell whether a line of the log says more than that set-up goes as always.

    Example
    -------
    >>> is_news(logging.makeLogRecord({"msg": "Gradscaler enabled: `False`"}))
    False
    """
    return not CHATTER.match(str(record.msg))
