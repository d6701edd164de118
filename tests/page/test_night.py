"""A night's page and the list of nights: what stands there, and that strangers' names are harmless in it."""

from dataclasses import replace

from segjobs.metrics.drift import RuleResult, usual
from segjobs.page.night import NightCard, NightContents, NightLine, index_page, night_page
from tests.metrics.test_drift import figures

HOSTILE = "<script>alert(1)</script>\u202e.jpg"
NIGHT = NightContents(
    collection="out/street",
    night="2026-02-01T02-00-00",
    version=7,
    model="unet@1",
    counts={"new": 2, "gone": 1, "same": 1000},
    examples={"gone": [HOSTILE]},
    failures={"TIMEOUT": (3, HOSTILE, "too slow")},
    figures=figures(0.3, failed=0.03),
    earlier=[figures(0.1), figures(0.2)],
    usual=usual([figures(0.1), figures(0.2)]),
    last=figures(0.2),
    gate=[RuleResult("drift[car] <= 0.2", 1.0, False), RuleResult("drift[bus] <= 0.2", None, True, "none tonight")],
    new=[NightCard("a.jpg", "data:image/webp;base64,AAAA", " · 0.5")],
    changed=[NightCard("b.jpg", "data:image/webp;base64,BBBB", " · before")],
    held=["out/street/runs/2026-01-31T02-00-00-0123"],
)


def test_a_night_is_told() -> None:
    page = night_page(NIGHT)
    assert "out/street@7" in page and "<td>1,000</td>" in page and "are no longer listed" in page
    assert "<script>" not in page and "\u202e" not in page and "&lt;script&gt;" in page
    assert "<td>30.00%</td>" in page and "<td>15.00%</td>" in page and "<td>100.00%</td>" in page
    assert '<polyline points="0.0,13.0 50.0,7.0 100.0,1.0"/>' in page, "the car's share, night by night"
    assert "<td>none tonight</td>" in page, "a rule without a figure says why"
    assert "<td>50.00%</td>" in page, "the car's drift since last night"
    assert (
        "Of 4 images that had masks of the same bytes before" in page and "Classes&#39; shares of the objects" in page
    )
    assert "held by its gate since an earlier night: out/street/runs/2026-01-31T02-00-00-0123" in page
    assert "most unlike their earlier masks" in page and "b.jpg · before" in page
    assert "<td>missed</td>" in page and 'src="data:image/webp;base64,AAAA"' in page
    held = night_page(replace(NIGHT, version=None, earlier=[], usual=None, last=None))
    assert "held by its gate, not published" in held and "polyline points" not in held


def test_all_nights_are_listed_the_newest_first() -> None:
    lines = [NightLine(f"2026-02-0{day}T02-00-00", {"new": day}, day, figures(), []) for day in (1, 2)]
    page = index_page("out/street", [*lines, NightLine("2026-02-03T02-00-00", {}, None, figures(), ["failed <= 2%"])])
    places = [page.index(f'href="2026-02-0{day}T02-00-00/index.html"') for day in (3, 2, 1)]
    assert places == sorted(places)
    assert "<td>held</td>" in page and "failed &lt;= 2%" in page and "<td>discarded</td>" not in page
    given_up = NightLine("2026-02-03T02-00-00", {"waiting": 3}, None, figures(), [], discarded=True)
    assert "<td>discarded</td>" in index_page("out/street", [given_up])
