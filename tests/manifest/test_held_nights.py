"""Nights in no version: which wait, which rows theirs are, and how one ends."""

from dataclasses import replace
from pathlib import Path

import pytest

from segjobs.errors import ManifestError
from segjobs.manifest.collection import find_collection, processing_of
from segjobs.manifest.held_nights import discard, held_nights, is_discarded, rows_waiting, version_of
from segjobs.manifest.nights import Night, begin, commit_night, end, read_end
from segjobs.manifest.parts import open_run, read_rows
from segjobs.storage import Storage
from tests.collections_made import CLASSES, commit
from tests.made import manifest
from tests.manifest.test_nights import NAME, change, night_of

LATER = "2026-02-02T02-00-00"


def held(uri: str, *images: str, name: str = NAME) -> Night:
    """A night that labelled these images anew and ended unpublished."""
    night = replace(night_of(uri, *(change(image, "new") for image in images)), name=name)
    assert night.run_uri is not None
    manifest(night.run_uri, {image: ["sr"] for image in images}, CLASSES)
    begin(Storage(), night)
    end(Storage(), night, {"night": name, "published": None})
    return night


def test_a_night_is_held_until_it_is_published_or_discarded(shared_store: tuple[Storage, str], tmp_path: Path) -> None:
    storage, uri = shared_store
    one, two = (replace(night_of(uri, change("a", "gone"), run_id=None), name=name) for name in (NAME, LATER))
    begin(storage, one)
    with pytest.raises(ManifestError, match="is begun and not ended"):
        discard(storage, one)
    end(storage, one, {"night": NAME, "published": None})
    begin(storage, two)
    end(storage, two, {"night": LATER, "published": None})
    records = [read_end(storage, uri, name) for name in (NAME, LATER)]
    assert held_nights(storage, uri, None, records) == [NAME, LATER]
    assert discard(storage, one) and not discard(storage, one) and is_discarded(storage, uri, NAME)
    commit(storage, uri, {"a": ["sr"]}, app_id="one")
    commit_night(storage, two)
    now = find_collection(storage, uri)
    assert version_of(now, {"night": LATER, "published": None}) == 2
    assert version_of(now, {"night": NAME, "published": 7}) == 7
    assert held_nights(storage, uri, now, records) == []


def test_rows_of_held_runs_wait(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    first, second = held(uri, "a", "c"), held(uri, "a", "b", name=LATER)
    assert first.run_uri is not None
    info = open_run(Storage(), first.run_uri).info
    assert info.model_label is not None
    own = {"model": info.model_label, "processing": processing_of(info.identity)}
    rows = rows_waiting(Storage(), uri, [LATER, NAME], **own).to_pylist()
    assert [(row["image_id"], row["night"]) for row in rows] == [("a", NAME), ("c", NAME)], (
        "the other's model is another"
    )
    assert rows[0]["source"]["sha256"] == "00" and rows[0]["labelled_at"].isoformat() == info.finished
    for other in ({"model": "other@1"}, {"processing": "other"}):
        assert rows_waiting(Storage(), uri, [NAME], **{**own, **other}).num_rows == 0
    assert second.run_uri != first.run_uri


def test_published_late_its_rows_join_as_later_nights_have_marked_them(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    commit(Storage(), uri, {"a": ["ss"], "b": ["ss"], "k": ["ss"]}, app_id="0")
    early = held(uri, "b", "c")
    early = replace(
        early, changes=night_of(uri, change("a", "gone"), change("b", "changed"), change("c", "new")).changes
    )
    later = replace(night_of(uri, change("b", "gone"), change("k", "gone"), run_id=None), name=LATER)
    begin(Storage(), later)
    commit_night(Storage(), later)
    assert commit_night(Storage(), early).new and not commit_night(Storage(), early).new
    rows = {row["image_id"]: row for row in read_rows(Storage(), uri)}
    assert rows.keys() == {"a", "c"}, "a was there at the later night, b had gone by then"
    back = replace(night_of(uri, change("b", "touched", sha256="00"), run_id=None), name="2026-02-03T02-00-00")
    begin(Storage(), back)
    commit_night(Storage(), back)
    rows = {row["image_id"]: row for row in read_rows(Storage(), uri)}
    assert {one["category"] for one in rows["b"]["segments"]} == {"sky", "road"}, "the held night's masks"


def test_an_image_that_came_back_meanwhile_is_there(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    commit(Storage(), uri, {"b": ["ss"]}, app_id="0")
    early = held(uri, "b")
    for name, what in ((LATER, "gone"), ("2026-02-03T02-00-00", "waiting")):
        night = replace(night_of(uri, change("b", what), run_id=None), name=name)
        begin(Storage(), night)
        commit_night(Storage(), night)
    commit_night(Storage(), early)
    assert [row["image_id"] for row in read_rows(Storage(), uri)] == ["b"]
