"""Federated speech enhancement: networks, objectives, training, trained models."""
