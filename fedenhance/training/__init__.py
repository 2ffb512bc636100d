"""The Separation Brain, and what makes its training steps quick."""
