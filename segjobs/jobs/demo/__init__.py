"""The other verbs, one after another, on drawn scenes."""
