"""Manifests and scores in, an HTML page out."""
