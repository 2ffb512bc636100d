"""The CHiME-7 UDASE task: models adapt to dinner parties, each home a client."""
