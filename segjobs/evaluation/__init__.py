"""What an evaluation is, without Ray: inputs → pairing → score of an image → scores → estimates → report."""
