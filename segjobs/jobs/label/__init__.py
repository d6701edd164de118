"""Images and a model in, a manifest out."""
