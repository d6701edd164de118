"""The two sides of an evaluation have to have images in common."""

from pathlib import Path

import pytest

from segjobs.errors import ManifestError
from tests.made import Picture, manifest, scored


@pytest.mark.parametrize("other", [{"a.png": ["s"], "b.png": ["s"]}, {}])
def test_image_ids_that_are_on_one_side_alone_are_refused(tmp_path: Path, other: dict[str, Picture]) -> None:
    truth = manifest(tmp_path / "truth", {"a.jpg": ["s"], "b.jpg": ["s"]}, cut=[1])
    found = manifest(tmp_path / "found", other)
    end = "2 such as 'a.png'" if other else "no image"
    with pytest.raises(ManifestError, match=rf"no image_id is in both: .*/truth has 2 such as 'a\.jpg', .*has {end};"):
        scored(tmp_path, truth, found)
    assert not (tmp_path / "scores").exists()


def test_one_image_id_on_both_sides_is_enough(tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {name: ["s"] for name in "abc"})
    found = manifest(tmp_path / "found", {name: ["s"] for name in "0bz"})
    assert scored(tmp_path, truth, found).images == {"ok": 1, "missing": 2, "failed": 0, "no_truth": 0, "extra": 2}


def test_other_tools_masks_are_told_from_a_manifest(tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"a": ["sr"]})
    (tmp_path / "masks").mkdir()
    with pytest.raises(
        ManifestError, match=r"^predictions\.uri: .*no manifest here; .* predictions\.format=png or coco_"
    ):
        scored(tmp_path, truth, str(tmp_path / "masks"))
