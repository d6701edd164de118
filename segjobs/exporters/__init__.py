"""A manifest, written for other tools: one file a format."""
