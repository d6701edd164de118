"""A model in, a line for each thing that it must hold out."""
