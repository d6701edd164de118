"""The report job on real manifests and real evaluations: what is picked, drawn, refused, and how large it gets."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segjobs.config import ReportConfig, load_config
from segjobs.errors import ConfigError, ConflictError, ExitCode, ManifestError
from segjobs.jobs.report.job import Sources, open_sources, report
from segjobs.jobs.report.tasks import Drawing, draw_image, rank_scores, tally_rows
from segjobs.manifest.parts import read_rows
from segjobs.manifest.schema import Category, make_categories
from segjobs.page.picks import Wanted
from segjobs.page.pictures import common_categories
from segjobs.storage import Storage
from tests.made import scored as evaluate
from tests.manifests import segments_of
from tests.page.sample import write_run_of

CLASSES = ("sky", "road", "tree")
SIZE_WH = (48, 32)


CATEGORIES = make_categories(CLASSES)
OTHER_ORDER = (Category(5, "Tree", (9, 9, 9)), Category(7, "road", (1, 1, 1)), Category(9, "SKY", (2, 2, 2)))


def photo(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*SIZE_WH[::-1], 3), np.uint8))


def truth_of() -> np.ndarray:
    """The upper half sky (0), the lower road (1), one column unlabelled (255)."""
    ids = np.zeros(SIZE_WH[::-1], np.uint8)
    ids[16:] = 1
    ids[:, 0] = 255
    return ids


def predicted_of(number: int) -> np.ndarray:
    """Image n has n columns of tree (2) where there is none, and image 0 misses a corner."""
    ids = truth_of()
    ids[:, 1 : 1 + number] = 2
    if number == 0:
        ids[:4, -4:] = 255
    return ids


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images, their truth, predictions that get worse with their number, and the evaluation of these."""
    folder = tmp_path_factory.mktemp("scored")
    (folder / "images").mkdir()
    paths = [folder / "images" / f"{number:02d}.png" for number in range(10)]
    for number, path in enumerate(paths):
        photo(number).save(path)
    confidence = {path.name: 0.9 - 0.05 * number for number, path in enumerate(paths)}
    truth, predicted = {path: truth_of() for path in paths}, {p: predicted_of(n) for n, p in enumerate(paths)}
    write_run_of(folder / "truth", truth, CATEGORIES)
    # The predictions' table has another order and another spelling.
    turned = {path: np.choose(ids.clip(0, 3), [2, 1, 0, 255]).astype(np.uint8) for path, ids in predicted.items()}
    write_run_of(folder / "predicted", turned, OTHER_ORDER, confidence=confidence)
    disputes, bootstrap = {"min_px": 1}, {"resamples": 20}
    evaluate(folder, str(folder / "truth"), str(folder / "predicted"), disputes=disputes, bootstrap=bootstrap)
    return folder


def configured(output: Path, *overrides: str) -> ReportConfig:
    return load_config(ReportConfig, None, [f"output.uri={output}", *overrides])


def made(output: Path, *overrides: str) -> str:
    assert report(configured(output, *overrides)).exit_code == ExitCode.DONE
    return (output / "report.html").read_text()


def cards(page: str) -> dict[str, list[str]]:
    """Titles of the groups → the image_ids under them."""
    section = page.partition('<section id="images">')[2].partition("</section>")[0]
    groups = re.split(r'<h3 id="(\w+)">', section)
    return {
        key: re.findall(r'<article class="card">\s*<header><span><bdi class="name" title="([^"]*)"', body)
        for key, body in zip(groups[1::2], groups[2::2], strict=True)
    }


def pictures(page: str) -> list[tuple[str, Image.Image]]:
    found = re.findall(r'<img src="data:image/webp;base64,([^"]+)"[^>]*alt="([^"]+)"', page)
    return [(alt, Image.open(io.BytesIO(base64.b64decode(data)))) for data, alt in found]


def test_an_evaluation_gives_a_page(
    ray_session: None, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = f"evaluation.uri={scored / 'scores'}"
    wanted = ["images.worst=2", "images.best=2", "images.random=3", "images.disputes=0"]
    page = made(tmp_path, evaluation, *wanted)
    found = cards(page)
    assert found["worst"] == ["09.png", "08.png"]
    assert found["best"] == ["00.png", "01.png"]
    assert len(found["random"]) == 3 and not {*found["random"]} & {"09.png", "08.png", "00.png", "01.png"}
    names = {"image", "truth", "prediction", "difference"}
    drawn = pictures(page)
    assert len(drawn) == 7 * 4
    assert {alt.partition(" of ")[0] for alt, _ in drawn} == names
    assert {picture.size for _, picture in drawn} == {SIZE_WH}, "never enlarged"
    scores = json.loads((scored / "scores" / "report.json").read_text())
    assert f"{100 * scores['semantic']['headline']['mean_iou']['value']:.2f}<small>%</small>" in page
    assert f"page: {tmp_path}/report.html, " in capsys.readouterr().err

    before = (tmp_path / "report.html").stat().st_mtime_ns
    again = report(configured(tmp_path, evaluation, *wanted))
    assert json.loads(again.text()) == {
        "page": f"{tmp_path}/report.html",
        "bytes": len(page.encode()),
        "exit_code": 0,
    }
    assert (tmp_path / "report.html").read_text() == page
    out, err = capsys.readouterr()
    assert out == ""
    assert f"nothing to do: {tmp_path}/report.html is there" in err
    assert (tmp_path / "report.html").stat().st_mtime_ns == before
    with pytest.raises(
        ConflictError, match=r"is the page of other images\.worst: overwrite=true replaces it, or choose"
    ):
        report(configured(tmp_path, evaluation, *wanted, "images.worst=1"))
    elsewhere = made(tmp_path / "elsewhere", evaluation, *wanted)
    assert elsewhere == page, "the same inputs give the same page"
    report(configured(tmp_path / "elsewhere", evaluation, *wanted, "images.worst=1", "overwrite=true"))
    assert cards((tmp_path / "elsewhere/report.html").read_text())["worst"] == ["09.png"]


def test_a_run_alone_gives_a_page(ray_session: None, scored: Path, tmp_path: Path) -> None:
    page = made(tmp_path, f"predictions.uri={scored / 'predicted'}", "images.worst=2", "images.best=1")
    found = cards(page)
    assert (found["worst"], found["best"], len(found["random"])) == (["09.png", "08.png"], ["00.png"], 7)
    assert {alt.partition(" of ")[0] for alt, _ in pictures(page)} == {"image", "prediction"}
    pixels = dict.fromkeys(("Tree", "road", "SKY"), 0)
    for row in read_rows(Storage(), str(scored / "predicted")):
        for segment in row["segments"]:
            pixels[segment["category"]] += segment["area"]
    pixels["unlabelled"] = 10 * SIZE_WH[0] * SIZE_WH[1] - sum(pixels.values())
    table = page.partition("What was found</h2>")[2].partition("</table>")[0]
    for name, number in pixels.items():
        row = table.partition(f">{name}</bdi>")[2].partition("</tr>")[0]
        assert f'title="{number:,}"' in row
        assert f">{100 * number / (10 * SIZE_WH[0] * SIZE_WH[1]):.1f}<" in row
    assert "10 images: 10 ok, 0 failed" in page


def test_a_source_that_is_gone_or_changed_is_a_placeholder(scored: Path, tmp_path: Path) -> None:
    """Drawn in this process, on rows whose image is another place's."""
    storage = Storage()
    sources = open_sources(configured(tmp_path, f"evaluation.uri={scored / 'scores'}"), storage)
    rows = {row["image_id"]: row for row in read_rows(storage, str(scored / "truth"))}
    drawing = drawing_of(sources)
    row = rows["03.png"]
    guess = next(one for one in read_rows(storage, str(scored / "predicted")) if one["image_id"] == "03.png")
    whole = dict(draw_image("03.png", row, guess, drawing=drawing)["pictures"])
    assert set(whole) == {"image", "truth", "prediction", "difference"}

    gone = draw_image("03.png", {**row, "uri": str(tmp_path / "gone.png")}, guess, drawing=drawing)
    assert set(dict(gone["pictures"])) == {"truth", "prediction", "difference"}
    assert dict(gone["absent"])["image"].startswith("NOT_FOUND: ")

    other = tmp_path / "other.png"
    photo(99).save(other)
    changed = draw_image("03.png", {**row, "uri": str(other)}, guess, drawing=drawing)
    assert "its sha256 differs" in dict(changed["absent"])["image"]
    unknown = {**row, "uri": str(other), "source": None}
    assert "image" in dict(draw_image("03.png", unknown, guess, drawing=drawing)["pictures"]), (
        "no fingerprint to compare"
    )
    other.write_bytes(b"no image")
    assert dict(draw_image("03.png", unknown, guess, drawing=drawing)["absent"])["image"].startswith("UNREADABLE: ")

    failed = {
        **guess,
        "status": "failed",
        "error": {"code": "NON_FINITE", "message": "NaN"},
        "width": None,
        "height": None,
    }
    card = draw_image("03.png", row, {**failed, "segments": None}, drawing=drawing)
    assert set(dict(card["pictures"])) == {"image", "truth"}
    assert dict(card["absent"])["prediction"] == "NON_FINITE: NaN"
    assert (
        dict(draw_image("03.png", row, None, drawing=drawing)["absent"])["prediction"] == "no prediction for this image"
    )
    smaller = {**guess, "width": 3}
    assert "another size: 3×32" in dict(draw_image("03.png", row, smaller, drawing=drawing)["absent"])["prediction"]
    broken = {**guess, "segments": [{**guess["segments"][0], "segmentation": {"size": [32, 48], "counts": "~~~"}}]}
    card = draw_image("03.png", row, broken, drawing=drawing)
    assert set(dict(card["pictures"])) == {"image"}
    assert "cannot be drawn" in card["remarks"][0]
    strange = {**guess, "segments": [{**guess["segments"][0], "category_id": 77}]}
    assert "category ids [77]" in dict(draw_image("03.png", row, strange, drawing=drawing)["absent"])["prediction"]
    neither = draw_image("03.png", None, None, drawing=drawing)
    assert (neither["pictures"], neither["uri"]) == ([], "")


def drawing_of(sources: Sources) -> Drawing:
    categories, mapping = common_categories(CATEGORIES, OTHER_ORDER)
    return Drawing(sources.storage, sources.truth, sources.predictions, categories, mapping, "semantic", 64, 10**6)


def test_a_run_that_moved_or_is_gone(ray_session: None, scored: Path, tmp_path: Path) -> None:
    """The evaluation's runs are looked for where it says, or where the config says."""
    moved = tmp_path / "moved"
    (scored / "truth").rename(moved)
    try:
        page = made(tmp_path / "one", f"evaluation.uri={scored / 'scores'}", "images.random=0", "images.best=0")
        assert f"{scored / 'truth'}: no run is there any more, or another one: its masks (truth) are not shown." in page
        assert {alt.partition(" of ")[0] for alt, _ in pictures(page)} == {"image", "prediction"}
        page = made(tmp_path / "two", f"evaluation.uri={scored / 'scores'}", f"truth.uri={moved}", "images.random=0")
        assert "difference" in {alt.partition(" of ")[0] for alt, _ in pictures(page)}
        with pytest.raises(ManifestError, match="not the run that was scored"):
            report(
                configured(
                    tmp_path / "three",
                    f"evaluation.uri={scored / 'scores'}",
                    f"truth.uri={scored / 'predicted'}",
                )
            )
    finally:
        moved.rename(scored / "truth")


def test_what_is_asked_for_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give one: what evaluate wrote, or a run"):
        report(configured(tmp_path))
    with pytest.raises(ManifestError, match=r"nowhere/report.json: not there; expected the folder that evaluate wrote"):
        report(configured(tmp_path, f"evaluation.uri={tmp_path}/nowhere"))
    with pytest.raises(ManifestError, match="no manifest here"):
        report(configured(tmp_path, f"predictions.uri={tmp_path}/nowhere"))
    with pytest.raises(ConfigError, match=r"give evaluation\.uri"):
        report(configured(tmp_path, f"predictions.uri={tmp_path}", f"truth.uri={tmp_path}"))


def test_another_file_in_its_place_is_a_conflict(scored: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>mine</p>")
    with pytest.raises(ConflictError, match="no page of segjobs"):
        report(configured(tmp_path, f"predictions.uri={scored / 'truth'}"))
    assert (tmp_path / "report.html").read_text() == "<p>mine</p>"


def test_scores_are_ranked_in_any_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    table = pa.table(
        {
            "image_id": [f"{n:04d}" for n in range(1000)],
            "status": ["ok" if n % 10 else "missing" for n in range(1000)],
            "mean_iou": [None if n % 7 == 3 else float(x) for n, x in enumerate(rng.random(1000))],
        }
    )
    pq.write_table(table, tmp_path / "scores.parquet", row_group_size=64)
    block = pa.table({"uri": [str(tmp_path / "scores.parquet")]})
    found = rank_scores(block, storage=Storage(), wanted=Wanted(3, 2, 1, 0)).to_pylist()
    assert len(found) <= 3 * 6
    ok = [row for row in table.to_pylist() if row["status"] == "ok"]
    ranked = sorted((row["mean_iou"], row["image_id"]) for row in ok if row["mean_iou"] is not None)
    names = [row["image_id"] for row in found]
    assert {name for _, name in (*ranked[:3], *ranked[-2:])} <= set(names)
    assert not {name for name in names if int(name) % 10 == 0}, "only what was scored"


def test_tallies_by_hand() -> None:
    ids = np.array([[1, 1, 1, 2, 2], [1, 1, 1, 2, 2]], np.uint8)
    classes = {number: Category(number, str(number), (0, 0, 0)) for number in (1, 2)}
    segments = [segment.to_row() for segment in segments_of(ids, classes, void=0)]
    rows = pa.Table.from_pylist(
        [
            {"image_id": "a", "status": "ok", "width": 5, "height": 2, "confidence": 0.95, "segments": segments},
            {"image_id": "b", "status": "ok", "width": 4, "height": 4, "confidence": 1.0, "segments": segments[:1]},
            {"image_id": "c", "status": "failed", "width": None, "height": None, "confidence": None, "segments": None},
        ]
    )
    tally = json.loads(json.dumps(tally_rows(rows, Wanted(1, 0, 0, 0))))
    assert [pick[0] for pick in tally["picks"]] == ["a", "b"]
    assert tally["confidence"] == [0] * 9 + [2]
    assert (tally["counts"]["images"], tally["counts"]["ok"], tally["counts"]["pixels"]) == (3, 2, 26)
    assert (tally["counts"]["classes"]["1"]["pixels"], tally["counts"]["classes"]["1"]["images"]) == (12, 2)


def test_without_per_image_the_parts_of_scores_are_ranked(ray_session: None, scored: Path, tmp_path: Path) -> None:
    (tmp_path / "scores" / "scores").mkdir(parents=True)
    (tmp_path / "scores" / "report.json").write_bytes((scored / "scores" / "report.json").read_bytes())
    scores = pq.read_table(scored / "scores" / "per_image.parquet").replace_schema_metadata()
    for number, start in enumerate((0, 6)):
        pq.write_table(scores.slice(start, 6), tmp_path / "scores" / "scores" / f"part-{number:05d}.parquet")
    page = made(tmp_path, f"evaluation.uri={tmp_path / 'scores'}", "images.disputes=2", "images.worst=1")
    assert cards(page)["worst"] == ["09.png"]
    assert cards(page)["disputes"] == ["09.png", "08.png"], "nine and eight columns of tree"
    assert set(re.findall(r'<section id="(\w+)">', page)) == {
        "scores", "classes", "confusion", "images", "disputes", "provenance",
    }  # fmt: skip
