"""A collection looked at and kept."""
