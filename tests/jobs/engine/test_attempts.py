"""The record of a run: what attempts tell it, and what the driver hears, without Ray and as an actor."""

import time
from pathlib import Path

import pyarrow as pa
import pytest

from segjobs.errors import ClusterError
from segjobs.jobs.engine.attempts import DEATHS, AttemptLog, Begun, News, open_attempts
from segjobs.jobs.engine.executor import Worker
from segjobs.jobs.engine.isolation import ALONE
from segjobs.storage import Storage


def test_a_shard_that_was_begun_and_never_ended_was_a_death() -> None:
    log = AttemptLog()
    assert [log.begin("a").deaths for _ in range(DEATHS)] == [0, 1, 2]
    log.begin("b")
    log.end("b")
    assert log.news() == News([], {})
    assert log.begin("a") == Begun(3, stopping=False)
    assert log.begin("b") == Begun(0, stopping=False)
    assert log.news().lines == ["a: 3 workers died on it; its images are tried in child processes"]
    assert log.stop() == 6
    assert log.begin("c") == Begun(0, stopping=True)


def test_news_are_heard_once_and_a_shard_s_last_count_is_what_counts() -> None:
    log = AttemptLog()
    log.count(7, 0, 0)
    log.count(7, 2, 1)
    log.count(9, 5, 0)
    log.tell("a line")
    assert log.news() == News(["a line"], {7: (2, 1), 9: (5, 0)})
    assert log.news() == News([], {})
    log.count(7, 0, 0)
    assert log.news().counts == {7: (0, 0)}, "another attempt at it begins"


def test_rows_are_counted_from_the_beginning_of_an_attempt_to_its_end(ray_session: None) -> None:
    import ray

    attempts = open_attempts(Storage(), "out")

    def counts() -> dict[int, tuple[int, int]]:
        news: News = ray.get(attempts.record.news.remote())
        return news.counts

    on_row = attempts.counting(pa.table({"shard": [7, 7, 7]}))
    assert counts() == {7: (0, 0)}
    for status in ("ok", "failed", "ok"):
        on_row({"status": status})
    assert counts() == {7: (2, 1)}, "its end is told at once"
    on_row = attempts.counting(pa.table({"shard": [8, 8, 8]}))
    on_row({"status": "ok"})
    time.sleep(1.1)
    on_row({"status": "ok"})
    assert counts() == {8: (2, 0)}, "and between them once a second"


def test_a_shard_of_deaths_alone_is_no_result_unless_its_worker_is_proven(ray_session: None, tmp_path: Path) -> None:
    items = pa.table({"shard": [0] * 4, "image_id": list("abcd")})

    def dead(items: pa.Table) -> pa.Table:
        error = {"code": "CRASHED", "message": f"its worker ended with status 7{ALONE}"}
        rows = items.append_column("status", pa.array(["failed"] * items.num_rows))
        return rows.append_column("error", pa.array([error] * items.num_rows))

    attempts = open_attempts(Storage(), str(tmp_path))
    (tmp_path / "plan.parquet").touch()
    with pytest.raises(ClusterError, match=r"each of the first 4 images .* its worker ended with status 7\. That"):
        attempts.run("labelling", items, Worker(dead, dead))
    assert attempts.run("labelling", items, Worker(dead, dead, proven=True)).num_rows == 4
    assert attempts.run("labelling", items, Worker(lambda items: items, dead)) == items, "decoded, say: no rows yet"


def test_after_a_stop_shards_are_left() -> None:
    log = AttemptLog()
    log.begin("labelling of shard 0")
    log.begin("labelling of shard 1")
    assert log.stop() == 2
    assert log.begin("labelling of shard 2") == Begun(0, stopping=True)
    assert log.stop() == 2, "what is left is not begun"
