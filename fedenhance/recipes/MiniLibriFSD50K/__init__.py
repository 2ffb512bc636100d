"""The built-in synthetic corpus in the layouts of LibriSpeech and FSD50K."""
