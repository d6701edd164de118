"""One torch thread for these tests: networks this small gain nothing from two, and two wait for each other when the
machine is busy (training LR-ASPP for five steps took 88 s instead of less than 3)."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
