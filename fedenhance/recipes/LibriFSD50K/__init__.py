"""LibriFSD50K: federated speech enhancement from LibriSpeech and FSD50K."""
