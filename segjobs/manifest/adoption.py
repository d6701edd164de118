"""Runs that were made elsewhere in a collection: a finished run in, one commit of its rows out, once for each run.

Of an image that both have the newer row stays, and a person's before a model's. An image is known by its image_id: a
run whose images are others, of the same names below another root, is refused.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from segjobs.errors import ConflictError
from segjobs.manifest.collection import Collection, Committed, as_rows, create_collection, joint_footer
from segjobs.manifest.merge import MARK_SCHEMA, Changes
from segjobs.manifest.parts import footer_of, read_part
from segjobs.manifest.run_info import Run
from segjobs.manifest.schema import Footer
from segjobs.storage import Storage


def app_id_of_run(run: Run) -> str:
    """What the table remembers of the run's commit."""
    return f"run:{run.info.run_id}"


def add_run(storage: Storage, uri: str, run: Run) -> Committed:
    """Bring the collection's table up to date with a run that was made elsewhere, once.

    Raises ConflictError where its images are not the collection's, or its masks of another task.
    """
    collection = create_collection(storage, uri)
    if collection.holds(app_id_of_run(run)) is None:
        check_run(collection, run)

    def changes(joint: Footer) -> Changes:
        return Changes(lambda: _rows(storage, run, joint), MARK_SCHEMA.empty_table())

    about = {"run_id": run.info.run_id, "run": run.uri}
    return collection.commit(changes, footer_of(run), app_id=app_id_of_run(run), about=about)


def _rows(storage: Storage, run: Run, joint: Footer) -> Iterator[pa.Table]:
    for part in run.parts:
        yield as_rows(read_part(storage, run, part), run.info, footer_of(run), to=joint.categories)


def check_run(now: Collection, run: Run) -> None:
    """Raise ConflictError where its masks are of another task, or an image_id of other bytes in another place."""
    joint_footer(now, footer_of(run))
    firsts, lasts = ([getattr(file.part, name) for file in now.files] for name in ("first_id", "last_id"))
    for part in run.parts:
        ours = _places(read_part(now.storage, run, part, columns=["image_id", "uri", "source"]))
        for file in now.files[bisect_left(lasts, part.first_id) : bisect_right(firsts, part.last_id)]:
            theirs = _places(now.columns(file, ["image_id", "uri", "source.sha256"]))
            both = ours.join(theirs, "image_id", join_type="inner", right_suffix="_there")
            other = pc.and_(
                pc.not_equal(both["uri"], both["uri_there"]), pc.not_equal(both["sha256"], both["sha256_there"])
            )
            strange = both.filter(other)
            if strange.num_rows:
                one = strange.sort_by("image_id").slice(0, 1).to_pylist()[0]
                raise ConflictError(
                    f"{run.uri}: {one['image_id']!r} is {one['uri']} there and {one['uri_there']} in {now.uri}, of "
                    "other bytes: two images have one image_id. Label them below a root that both have, or by a list "
                    "whose column image_id tells them apart; or add the run to a collection of its own"
                )


def _places(rows: pa.Table) -> pa.Table:
    """image_id, uri and sha256 of rows."""
    sha256 = pc.struct_field(rows["source"], "sha256")
    return pa.table({"image_id": rows["image_id"], "uri": rows["uri"], "sha256": sha256})
