"""A truth manifest in, a model directory out."""
