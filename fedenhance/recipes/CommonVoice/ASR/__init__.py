"""Federated recognition of Common Voice, where each speaker is a client."""
