"""The Segmenter of an exported network: as ``semantic.py``, on arrays of numpy, without torch.

    uint8 image → resize, pad → network → the way back

Images are resized to the same bytes as by torch.

The network takes uint8 pixels and normalises them itself.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from segjobs.config import LossConfig
from segjobs.errors import ItemError
from segjobs.manifest.rows import Uncertainty
from segjobs.manifest.schema import ModelCard
from segjobs.models import batching
from segjobs.models.base import LabelMap, LabelRuns, Prediction, Target
from segjobs.models.preparing import preparing_by_card
from segjobs.models.resize import target_size
from segjobs.models.run_finder import find_runs
from segjobs.models.uncertainty import of_logits
from segjobs.models.upsample import upsample_on_cpu, upsampled_array

if TYPE_CHECKING:
    import torch


class Network(Protocol):
    """An exported network in some runtime."""

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (N, h, w, 3) RGB → logits, float32 (N, C, h', w'). Raises RuntimeError."""
        ...


class ExportedSegmenter:
    """See ``base.Segmenter``. ``check``: is shown the first batch's pixels and logits; its error stops the job."""

    same_size_batches = True
    module: Any = None  # none of torch's

    def __init__(
        self,
        network: Network,
        card: ModelCard,
        *,
        divisor: int = 1,
        least: int = 1,
        check: Callable[[np.ndarray, np.ndarray], None] = lambda pixels, logits: None,
    ) -> None:
        self.card = card
        self._network = network
        self._divisor = divisor
        self.preparing = preparing_by_card(card, divisor=divisor, least=least, by="numpy")
        self._check: Callable[[np.ndarray, np.ndarray], None] | None = check
        self._rule: str = card.preprocessing["resize"]

    def preprocess(self, image: np.ndarray) -> Any:
        """uint8 (H, W, 3) RGB → uint8 (h, w, 3): resized; padded at right and bottom with the mean colour."""
        return self.preparing.array(image)

    def forward(self, batch: Sequence[Any]) -> list[np.ndarray]:
        """Prepared images of one shape → logits (C, h', w') each, float32. Raises ConfigError by the first batch."""
        pixels = np.stack(batch)
        logits = self._network(pixels)
        expected = (len(pixels), len(self.card.categories))
        if logits.ndim != 4 or logits.shape[:2] != expected:
            raise RuntimeError(f"logits {logits.shape}, expected {expected} and a height and width")
        if self._check is not None:
            self._check(pixels, logits)
            self._check = None
        return list(logits)

    def postprocess(self, output: np.ndarray, size_hw: tuple[int, int]) -> LabelMap:
        """Logits (C, h', w') of one image → its label map. Raises ItemError NON_FINITE."""
        logits, by_way_of = self._at_inner_size(output, size_hw)
        self._check_finite(logits)
        return LabelMap(*upsample_on_cpu(logits, size_hw, by_way_of=by_way_of))

    def runs(self, outputs: Sequence[np.ndarray], sizes_hw: Sequence[tuple[int, int]]) -> list[LabelRuns | ItemError]:
        """See ``base.GivesRuns``."""
        return list(map(self._runs, outputs, sizes_hw))

    def _runs(self, output: np.ndarray, size_hw: tuple[int, int]) -> LabelRuns | ItemError:
        logits, by_way_of = self._at_inner_size(output, size_hw)
        try:
            self._check_finite(logits)
        except ItemError as error:
            return error
        return find_runs(logits, size_hw, by_way_of=by_way_of)

    def logits(self, output: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
        """See ``base.GivesLogits``. Raises ItemError NON_FINITE."""
        logits, by_way_of = self._at_inner_size(output, size_hw)
        self._check_finite(logits)
        return upsampled_array(logits, size_hw, by_way_of=by_way_of)

    def uncertainty(self, output: np.ndarray, size_hw: tuple[int, int]) -> Uncertainty:
        """See ``base.GivesUncertainty``."""
        return of_logits(self._at_inner_size(output, size_hw)[0])

    def _at_inner_size(self, output: np.ndarray, size_hw: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int] | None]:
        """Logits without what was padded, and the size to upsample them to before the image's, if any."""
        inner = target_size(self._rule, size_hw)
        if self._divisor > 1:
            output = output[:, : inner[0], : inner[1]]
        return np.ascontiguousarray(output, np.float32), inner if output.shape[1:] != inner != size_hw else None

    def _check_finite(self, logits: np.ndarray) -> None:
        if not np.isfinite(logits.sum()):
            raise ItemError("NON_FINITE", f"{self.card.name} gave NaN or infinity")

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Images uint8 (H, W, 3) RGB of any sizes → one LabelMap each."""
        return batching.predict(self, images)

    def set_loss(self, config: LossConfig, amounts: Sequence[int] | None = None) -> None:
        """An exported network learns nothing."""
        raise NotImplementedError("an exported network learns nothing")

    def loss(self, images: Sequence[np.ndarray], targets: Sequence[Target]) -> "torch.Tensor":
        """An exported network learns nothing."""
        raise NotImplementedError("an exported network learns nothing")
