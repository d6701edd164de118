"""How fast labelling is, beside the bare model and a plain Ray Data script."""
