"""The second task: speech recognition by Brains of its own."""
