"""Federated learning for any SpeechBrain Brain, on Flower."""

from fed.federation import Federation

__all__ = ["Federation"]
