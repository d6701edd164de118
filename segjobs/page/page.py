"""The page: scores, pictures and provenance in, one self-contained HTML text out.

    contents.Page ─→ view.context_of ─→ templates/page.html.j2 ─→ HTML

The file loads nothing and runs nothing: its content security policy allows pictures that it holds
itself and the one style sheet whose hash it names. Every text in it may be hostile; see ``text.py``.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup

from segjobs.errors import ConfigError, ManifestError
from segjobs.narrow import is_object
from segjobs.page import text, wording
from segjobs.page.contents import Group, Page
from segjobs.page.view import LEVELS, context_of

_LIGHT, _DARK = ((247, 249, 252), (8, 48, 107)), ((30, 36, 44), (158, 205, 245))
_ABOUT = re.compile(r'<meta name="segjobs" content="([^"]*)">')
_NOTE_BYTES = 400  # of the note that images are left out
_IMG_BYTES = 60  # of an <img> without its data and the image's name, more than of what stands there without it


def render(page: Page, *, max_bytes: int) -> str:
    """The page as HTML of at most ``max_bytes`` as UTF-8: where its pictures take more, the last images
    of each group lose theirs, and a note says so. Raises ConfigError where it is too large without any,
    ManifestError where the report holds what cannot be shown."""
    room = max_bytes - len(_html(_without_pictures(page, set())).encode())
    if room < 0:
        raise ConfigError(f"max_bytes: {max_bytes}: the page needs {max_bytes - room} without any picture")
    kept = _that_fit(page.groups, room)
    every = {(group.key, card.image_id) for group in page.groups for card in group.cards}
    if every - kept:
        left_out = f"{len(every - kept)} of {len(every)} images are left out"
        note = f"{left_out}: the page would be larger than max_bytes={max_bytes:,}."
        page = replace(_without_pictures(page, kept), notes=(*page.notes, note))
    return _html(page)


def _without_pictures(page: Page, kept: set[tuple[str, str]]) -> Page:
    """The page with those cards only that are in ``kept``; the others keep their names and lose their pictures."""
    groups = tuple(
        replace(
            group,
            cards=tuple(
                card
                if (group.key, card.image_id) in kept
                else replace(card, pictures={}, absent=dict.fromkeys(card.pictures, wording.LEFT_OUT))
                for card in group.cards
            ),
        )
        for group in page.groups
    )
    return replace(page, groups=groups)


def _that_fit(groups: Sequence[Group], room: int) -> set[tuple[str, str]]:
    """Keys of the cards whose pictures fit into ``room`` bytes: first ones of all groups before second ones."""
    turns = sorted(
        ((place, number) for number, group in enumerate(groups) for place in range(len(group.cards))),
    )
    kept, room = set(), room - _NOTE_BYTES
    for place, number in turns:
        card = groups[number].cards[place]
        each = _IMG_BYTES + len(html.escape(text.shorten(card.image_id, 90)).encode())
        cost = sum(4 * -(-len(webp) // 3) + each for webp in card.pictures.values())
        if cost > room:
            break
        room -= cost
        kept.add((groups[number].key, card.image_id))
    return kept


def about_of(page_html: str) -> dict[str, object] | None:
    """What a page of ours says that it was made of; None where it is not one."""
    match = _ABOUT.search(page_html)
    if not match:
        return None
    try:
        about = json.loads(html.unescape(match[1]))
    except ValueError:
        return None
    return about if is_object(about) else None


# HTML ------------------------------------------------------------------------------------------------


@cache
def environment() -> jinja2.Environment:
    """The templates, with what makes strangers' texts harmless as filters."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("segjobs.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        visible=text.visible,
        shorten=text.shorten,
        link=text.link,
        number=text.number,
        percent=text.percent,
        points=text.points,
        count=text.count,
        brief=text.brief,
        p_value=text.p_value,
        value=text.value_of,
        span=text.span_of,
        scaled=text.scaled,
    )
    return environment


def _html(page: Page) -> str:
    css, css_hash = style()
    template = environment().get_template("page.html.j2")
    try:
        return template.render(context_of(page), css=Markup(css), css_hash=css_hash)  # noqa: S704  # our own file
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ManifestError(f"the report holds what a page cannot show: {type(error).__name__}: {error}") from error


def style() -> tuple[str, str]:
    """The style sheet and its hash for the content security policy."""
    css = resources.files("segjobs.page").joinpath("templates/page.css").read_text()
    css += _heat_css(*_LIGHT) + "@media screen and (prefers-color-scheme: dark) {\n" + _heat_css(*_DARK) + "}\n"
    return css, "sha256-" + base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()


def _heat_css(start: tuple[int, int, int], end: tuple[int, int, int]) -> str:
    """``.h0`` to ``.h20``: one hue, even steps of lightness, and the ink that is legible on each."""
    rules = []
    for level in range(LEVELS):
        share = level / (LEVELS - 1)
        rgb = [round(a + (b - a) * share) for a, b in zip(start, end, strict=True)]
        luma = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
        rules.append(
            f".h{level}{{background:rgb({rgb[0]},{rgb[1]},{rgb[2]});color:{'#10151b' if luma > 125 else '#fff'}}}\n"
        )
    return "".join(rules)
