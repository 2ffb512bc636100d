"""Recipes: corpora from their archives to manifests."""
