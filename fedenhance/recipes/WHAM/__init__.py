"""WHAM!: noise of cafes and streets with WSJ0 or LibriSpeech, for pre-training."""
