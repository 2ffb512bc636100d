"""Real recordings from Debian packages in the layouts of LibriSpeech and FSD50K."""
