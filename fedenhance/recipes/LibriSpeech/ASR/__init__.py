"""Federated recognition of LibriSpeech, or of the built-in corpus in its layout."""
