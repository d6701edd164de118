"""People's corrections, brought into a collection."""
