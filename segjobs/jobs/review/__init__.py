"""A collection in, tasks for people out."""
