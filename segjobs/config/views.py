"""``model.tta``: the views of an image that a model is shown besides the image itself; a text in, a ``View`` out.

hflip, vflip, scale:0.75, and several at once: hflip+scale:1.25
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SCALE = re.compile(r"scale:(\d+(?:\.\d+)?)")
_LEAST, _MOST = 0.1, 8.0


@dataclass(frozen=True, order=True)
class View:
    """How an image is shown: ``scale`` times as large as the model takes it, mirrored left to right, top to bottom."""

    scale: float = 1.0
    hflip: bool = False
    vflip: bool = False

    def __str__(self) -> str:
        words = [*(["hflip"] if self.hflip else []), *(["vflip"] if self.vflip else [])]
        return "+".join([*words, *([f"scale:{self.scale:g}"] if self.scale != 1 else [])])


def parse_view(text: str) -> View:
    """The view that an entry of ``model.tta`` names. Raises ValueError."""
    scale, flips = 1.0, list[str]()
    for word in text.replace(" ", "").split("+"):
        found = _SCALE.fullmatch(word)
        if found and scale == 1:
            scale = float(found[1])
        elif word in ("hflip", "vflip") and word not in flips:
            flips.append(word)
        else:
            raise ValueError(f"{text!r}: expected hflip, vflip, scale:0.75, or several at once as hflip+scale:1.25")
    if not _LEAST <= scale <= _MOST:
        raise ValueError(f"{text!r}: a scale is a factor from {_LEAST:g} to {_MOST:g}, such as scale:1.25")
    return View(scale, "hflip" in flips, "vflip" in flips)


def check_views(texts: Sequence[str]) -> list[str]:
    """The entries in one order and spelling, so that another order is no other model. Raises ValueError."""
    views = [parse_view(text) for text in texts]
    if View() in views:
        raise ValueError(f"{texts[views.index(View())]!r} is the image as it is, which is always shown; drop it")
    twice = next((one for one in views if views.count(one) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} stands there twice")
    return [str(view) for view in sorted(views)]
