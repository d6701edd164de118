"""A manifest in, other tools' files out."""
