"""LibriSpeech: read English, for speech recognition."""
