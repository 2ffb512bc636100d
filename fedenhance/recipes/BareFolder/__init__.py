"""Any folder of recordings, without references: manifests, and an account of it."""
