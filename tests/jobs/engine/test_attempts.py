"""The record of attempts: deaths are what was begun and never ended; after a stop nothing is begun."""

from segjobs.jobs.engine.attempts import AttemptLog, Begun


def test_three_deaths_are_told_once_and_an_end_forgets_them() -> None:
    log = AttemptLog()
    begun = [log.begin("reading of shard 3") for _ in range(5)]
    assert begun == [Begun(deaths, stopping=False) for deaths in range(5)]
    assert log.news() == ["reading of shard 3: 3 workers died on it; its images are tried in child processes"]
    assert log.news() == []
    log.end("reading of shard 3")
    assert log.begin("reading of shard 3") == Begun(0, stopping=False)


def test_after_a_stop_shards_are_left() -> None:
    log = AttemptLog()
    log.begin("labelling of shard 0")
    log.begin("labelling of shard 1")
    assert log.stop() == 2
    assert log.begin("labelling of shard 2") == Begun(0, stopping=True)
    assert log.stop() == 2, "what is left is not begun"
