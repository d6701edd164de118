"""Perceptual hashes: against Pillow's own shrinking, near for the same picture, far for another."""

import io

import numpy as np
from PIL import Image

from segjobs.sources.perceptual_hash import difference_hash, distances


def picture(seed: int, size_hw: tuple[int, int] = (240, 320)) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize(size_hw[::-1], Image.Resampling.BICUBIC))


def bits(image: np.ndarray) -> np.ndarray:
    """As imagehash's ``dhash`` makes them, with a box filter."""
    grey = Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX)
    pixels = np.asarray(grey).astype(int)
    return (pixels[:, 1:] > pixels[:, :-1]).ravel()


def test_the_bits_are_those_of_another_implementation() -> None:
    for seed in range(20):
        image = picture(seed)
        own = np.array([int(bit) for bit in f"{difference_hash(image):064b}"], bool)
        assert (own != bits(image)).sum() <= 1, "a pixel between two roundings"


def test_the_same_picture_is_near_and_another_one_far() -> None:
    image = picture(1)
    smaller = np.asarray(Image.fromarray(image).resize((160, 120)))
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=40)
    compressed = np.asarray(Image.open(buffer))
    brighter = np.clip(image.astype(int) + 12, 0, 255).astype(np.uint8)
    same = np.array([difference_hash(one) for one in (image, smaller, compressed, brighter)], np.uint64)
    assert distances(difference_hash(image), same).max() <= 4
    others = np.array([difference_hash(picture(seed)) for seed in range(2, 30)], np.uint64)
    assert distances(difference_hash(image), others).min() > 12


def test_distances_by_hand() -> None:
    assert distances(0b1011, np.array([0b1011, 0, 2**64 - 1], np.uint64)).tolist() == [0, 3, 61]
    assert distances(2**63, np.array([0], np.uint64)).tolist() == [1]
    assert distances(1, np.zeros(0, np.uint64)).tolist() == []


def test_a_picture_of_one_pixel_has_one() -> None:
    assert difference_hash(np.zeros((1, 1, 3), np.uint8)) == 0
