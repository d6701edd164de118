"""How long to wait before a request is sent again."""

import random

LONGEST_WAIT_S = 20.0
_FIRST_WAIT_S = 0.2


def wait_s(attempt: int) -> float:
    """Full jitter: anything up to a bound that doubles, so that workers that failed together do not return together.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
    """
    return random.uniform(0, min(_FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S))  # noqa: S311
