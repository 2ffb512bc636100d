"""Federated learning for any SpeechBrain Brain, on Flower."""

from fed import holdings, partition, privacy, runtime, schedule, weighting
from fed.federation import Federation

__all__ = [
    "Federation",
    "holdings",
    "partition",
    "privacy",
    "runtime",
    "schedule",
    "weighting",
]
