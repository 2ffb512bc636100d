"""Common Voice: sentences in many languages, read by volunteers."""
