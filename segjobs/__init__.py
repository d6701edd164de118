"""segjobs: label, score and look at very large image collections with segmentation models on Ray."""

__version__ = "0.1.0"
