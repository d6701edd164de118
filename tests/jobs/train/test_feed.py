"""The order of a training as pure numbers, and an example on its way to the model."""

from collections.abc import Container

import numpy as np

from segjobs.config import AugmentConfig
from segjobs.jobs.train.feed import Feed, Order, fitted
from segjobs.manifest.rle import VOID
from segjobs.manifest.schema import Category
from segjobs.storage import Storage
from segjobs.training.examples import Example
from tests.manifests import segments_of


def feed_of(order: Order, step_size: int) -> Feed:
    return Feed(
        order=order,
        rows=None,  # type: ignore[arg-type]  # not read here
        sources=[],
        storage=Storage(),
        task="semantic",
        resize="native",
        augment=AugmentConfig(),
        step_size=step_size,
        steps=9,
        max_pixels=10**6,
    )


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    order = Order((7, 4), (1.0, 1.0), seed=3)
    epochs = [order.take(np.arange(11) + 11 * epoch) for epoch in range(3)]
    assert [sorted(epoch.tolist()) for epoch in epochs] == [list(range(11))] * 3
    assert epochs[0].tolist() != epochs[1].tolist() != epochs[2].tolist()
    other = Order((7, 4), (1.0, 1.0), seed=4)
    assert other.take(np.arange(11)).tolist() != epochs[0].tolist()
    # Wherever one begins to read, the sequence is the same.
    np.testing.assert_array_equal(order.take(np.arange(5, 25)), np.concatenate(epochs)[5:25])


def test_weights_say_how_often_an_epoch_shows_an_image() -> None:
    order = Order((8, 4, 10), (2.25, 1.0, 0.5), seed=0)
    assert order.epoch_size == 18 + 4 + 5
    seen = np.stack([np.bincount(order.take(np.arange(27) + 27 * epoch), minlength=22) for epoch in range(40)])
    assert set(seen[:, :8].ravel().tolist()) == {2, 3} and (seen[:, :8].sum(axis=1) == 18).all()
    assert (seen[:, 8:12] == 1).all()
    assert set(seen[:, 12:].ravel().tolist()) == {0, 1} and (seen[:, 12:].sum(axis=1) == 5).all()
    assert (seen[:, 12:].sum(axis=0) > 0).all(), "others in each epoch"


def test_a_source_of_which_nothing_is_left_is_shown_never() -> None:
    assert sorted(Order((3, 0, 2), (1.0, 0.5, 1.0), seed=0).take(np.arange(5)).tolist()) == [0, 1, 2, 3, 4]


def test_several_workers_see_in_each_step_what_one_would() -> None:
    feed = feed_of(Order((10,), (1.0,), seed=1), step_size=4)
    for step in range(9):
        alone = feed.positions(step, 0, 1)
        np.testing.assert_array_equal(np.concatenate([feed.positions(step, rank, 2) for rank in range(2)]), alone)
        np.testing.assert_array_equal(alone, np.arange(4 * step, 4 * step + 4))


def example(ids: np.ndarray, indices: dict[int, int | None], *, crowds: Container[int] = ()) -> Example:
    """``ids``: classes in the manifest; ``indices``: what the model calls them."""
    categories = {number: Category(number, f"class {number}", (0, 0, 0)) for number in indices}
    found = segments_of(ids, categories, void=VOID, crowds=crowds)
    learnt = [(index, one) for one in found if (index := indices[one.category_id]) is not None]
    return Example("a", np.zeros((*ids.shape, 3), np.uint8), learnt)


def test_classes_that_are_not_learnt_are_unlabelled() -> None:
    ids = np.array([[0, 0, 1], [2, 2, VOID]], np.uint16)
    image, target = fitted(example(ids, {0: 1, 1: None, 2: 0}), "semantic", "native")
    assert target.ids.tolist() == [[1, 1, VOID], [0, 0, VOID]]
    image, target = fitted(example(ids, {0: 1, 1: None, 2: 0}), "semantic", "4x6")
    assert image.shape == (4, 6, 3)
    assert target.ids.tolist() == [[1, 1, 1, 1, VOID, VOID]] * 2 + [[0, 0, 0, 0, VOID, VOID]] * 2


def test_objects_in_the_frame_of_the_resized_image() -> None:
    ids = np.zeros((6, 8), np.uint16)
    ids[2:4, 1:5] = 1
    _, target = fitted(example(ids, {0: None, 1: 2}), "instance", "12x16")
    assert target.size_hw == (12, 16) and target.classes.tolist() == [2]
    assert target.boxes_xyxy.tolist() == [[2, 4, 10, 8]] and target.corners_xy.tolist() == [[2, 4]]
    np.testing.assert_array_equal(target.crops[0], np.ones((4, 8)))
    _, none = fitted(example(ids, {0: None, 1: 2}, crowds=(1,)), "instance", "12x16")
    assert none.boxes_xyxy.shape == (0, 4) and none.classes.size == 0


def test_objects_are_learnt_at_the_size_at_which_mask_rcnn_runs() -> None:
    ids = np.ones((10, 40), np.uint16)
    image, target = fitted(example(ids, {1: 0}), "instance", "short:8")
    # The longer side ends at 1333/800 of 8 pixels.
    assert image.shape == (3, 13, 3) and target.size_hw == (3, 13)
