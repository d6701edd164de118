"""Somebody's labels in, a truth manifest out."""
