"""Label files as an adapter reads them: a folder of images and a config in, every image's masks out, without Ray."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segjobs.config import InputConfig, LabelsConfig
from segjobs.errors import ItemError
from segjobs.labels.base import LabelRequest, Labels, Masks
from segjobs.labels.class_tables import with_class_names
from segjobs.labels.table import get_adapter
from segjobs.sources.decode import image_frame
from segjobs.sources.images import list_images
from segjobs.storage import Storage

_MAX_PIXELS = 10**8


@pytest.fixture
def read_labels() -> Callable[..., tuple[Labels, dict[str, Masks | ItemError | None]]]:
    """(images folder, labels config) → what the adapter found, and per image its masks, error, or None (no label)."""

    def read(images: Path | str, **settings: Any) -> tuple[Labels, dict[str, Masks | ItemError | None]]:
        storage = Storage()
        config = with_class_names(LabelsConfig.model_validate(settings), storage)
        files = sorted(list_images(storage, InputConfig(uri=str(images))), key=lambda file: file.path)
        labels = get_adapter(config.format)(LabelRequest(config, storage, [file.path for file in files], _MAX_PIXELS))
        found: dict[str, Masks | ItemError | None] = {}
        for file, text in zip(files, labels.texts, strict=True):
            size_hw = image_frame(storage.read(file.uri), max_pixels=_MAX_PIXELS).size_hw
            try:
                found[file.path] = labels.read(text, size_hw) if text is not None else None
            except ItemError as error:
                found[file.path] = error
        return labels, found

    return read
