"""Local paths are asked for on each node: what is not seen there is refused, with the way out."""

from pathlib import Path

import pytest

from segjobs.errors import ClusterError
from segjobs.jobs.engine.shared_disk import ask, check_shared, refuse
from segjobs.storage import Storage

import ray  # isort: skip  # after segjobs.jobs, which sets its environment

PATHS = {"input.uri": "/photos/a.jpg", "output.uri": "/out/run1"}


def test_what_a_node_does_not_see_is_refused_with_the_way_out() -> None:
    refuse(PATHS, [("10.0.0.1", [True, True]), ("10.0.0.2", [True, True])])
    with pytest.raises(ClusterError) as caught:
        refuse(PATHS, [("10.0.0.1", [True, True]), ("10.0.0.2", [True, False]), ("10.0.0.2", [True, True])])
    assert str(caught.value) == (
        "output.uri: /out/run1 is a path of the driver's disk, and node 10.0.0.2 does not see the same there; take a "
        "place that all nodes share: s3://bucket/prefix, or a disk that is mounted at one path on each"
    )


def test_each_node_is_asked_by_a_task_of_its_own(ray_session: None, tmp_path: Path) -> None:
    (tmp_path / "a#1.jpg").touch()
    (node,) = [one for one in ray.nodes() if one["Alive"]]
    gone = {"NodeID": "e" * 56, "NodeManagerAddress": "10.0.0.9"}
    told = ask([node, gone, node], [f"{tmp_path}/a#1.jpg", f"{tmp_path}/b.jpg", f"file://{tmp_path}/a%231.jpg"])
    seen = (node["NodeManagerAddress"], [True, False, True])
    assert told == [seen, seen], "a node that is lost is left out, not one whose address another has"


def test_one_node_has_one_disk(ray_session: None, tmp_path: Path) -> None:
    check_shared(Storage(), str(tmp_path / "out"), {"input.uri": str(tmp_path), "truth.uri": None})
    assert not list(tmp_path.iterdir()), "nothing is written for it"
