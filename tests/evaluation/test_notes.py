"""When ids look like frames. The other notes stand with the scores that they are about, in test_foreign.py."""

import pytest

from segjobs.evaluation.notes import frames_note


@pytest.mark.parametrize(
    ("image_ids", "sequences"),
    [
        ([f"{name}/frame{n:03d}.jpg" for name in "ab" for n in range(6)], 2),
        ([f"{name}_{n:06d}.png" for name in ("0001TP", "Seq05VD") for n in range(0, 300, 30)], 2),
        ([f"{n}.png" for n in range(50)], None),  # one numbering: any folder of photographs
        ([f"{n:012d}.jpg" for n in (139, 285, 632, 724, 776, 785)], None),
        (
            [*(f"a/{n}.jpg" for n in range(5)), *(f"b/{n}.jpg" for n in range(5)), *(f"x{n}y.jpg" for n in "qwert")],
            None,
        ),
        (["cat.jpg", "dog.jpg"], None),
        ([], None),
    ],
)
def test_ids_that_look_like_frames(image_ids: list[str], sequences: int | None) -> None:
    notes = list(frames_note(image_ids))
    assert len(notes) == (sequences is not None)
    assert all(note.startswith(f"image_ids look like frames of {sequences} sequences") for note in notes)
