"""Images that grow in number and a model in, a collection brought up to date out."""
