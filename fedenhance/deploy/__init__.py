"""A trained model in use: loaded, applied, streamed, exported, packaged."""
