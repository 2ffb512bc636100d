"""The programs: ``fedenhance NAME``, of which ``train.py`` and others are short."""
