"""From audio files and manifests to datasets and batches."""
