"""What people look at: overlays for notebooks, and the page of a run (``page.render``)."""

from segjobs.page.pictures import draw_row

__all__ = ["draw_row"]
