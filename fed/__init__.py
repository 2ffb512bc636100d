"""Federated learning for any SpeechBrain Brain, on Flower."""

import importlib

__all__ = [
    "Federation",
    "holdings",
    "partition",
    "privacy",
    "runtime",
    "schedule",
    "weighting",
]


def __getattr__(name):
    """Import what is asked for: a SuperLink has no use for PyTorch."""
    if name == "Federation":
        return importlib.import_module("fed.federation").Federation
    if name in __all__:
        return importlib.import_module(f"fed.{name}")
    raise AttributeError(f"module 'fed' has no attribute '{name}'")
