"""What each round gave, by hand: median, extremes, noise."""

from segjobs.jobs.bench.figures import spread_of


def test_rounds_that_differ_by_more_than_a_quarter_are_noise() -> None:
    assert spread_of([40.0, 30.0, 41.0]) == {
        "median": 40.0,
        "min": 30.0,
        "max": 41.0,
        "noisy": True,
        "runs": [40.0, 30.0, 41.0],
    }
    assert not spread_of([40.0, 35.0, 45.0])["noisy"], "a quarter itself is none"
