"""Two manifests in, an IoU report out."""
