"""What training is, without Ray: examples, optimiser, checkpoints, validation."""
