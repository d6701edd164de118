"""Repositories of transformers, tiny and random, as ``save_pretrained`` writes them: a model type in, a folder out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BeitConfig,
    BeitForSemanticSegmentation,
    BeitImageProcessor,
    ConvNextConfig,
    DPTConfig,
    DPTForSemanticSegmentation,
    DPTImageProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)
from transformers.utils import logging

SIZE = 64
SQUARE = {"height": SIZE, "width": SIZE}
CLASSES = ["background", "left", "right"]


def _segformer(labels: dict[str, Any]) -> Any:
    return SegformerForSemanticSegmentation(
        SegformerConfig(
            depths=[1] * 4,
            hidden_sizes=[8, 8, 16, 16],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
            **labels,
        )
    )


def _upernet(labels: dict[str, Any]) -> Any:
    stages = [f"stage{number}" for number in range(1, 5)]
    backbone = ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, out_features=stages)
    small = {"hidden_size": 8, "auxiliary_channels": 8, "auxiliary_in_channels": 8, "pool_scales": [1, 2]}
    return UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone, **small, **labels))


_VIT = {"hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}


def _beit(labels: dict[str, Any]) -> Any:
    more = {"image_size": SIZE, "out_indices": [1, 2, 3, 4], "auxiliary_channels": 8, "pool_scales": [1, 2]}
    return BeitForSemanticSegmentation(BeitConfig(use_relative_position_bias=True, **_VIT, **more, **labels))


def _dpt(labels: dict[str, Any]) -> Any:
    more = {"image_size": SIZE, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4}
    return DPTForSemanticSegmentation(DPTConfig(fusion_hidden_size=8, **_VIT, **more, **labels))


KINDS: dict[str, tuple[Callable[[dict[str, Any]], Any], Callable[..., Any]]] = {
    "segformer": (_segformer, SegformerImageProcessor),
    "upernet": (_upernet, SegformerImageProcessor),
    "beit": (_beit, BeitImageProcessor),
    "dpt": (_dpt, DPTImageProcessor),
}


@torch.no_grad()
def _spread(network: Any) -> None:
    """Weights far from the small ones that a training starts from, and classes that win some pixels each."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    named = ((name, layer) for name, layer in network.named_modules() if not name.startswith("auxiliary"))
    *_, last = (layer for _, layer in named if getattr(layer, "out_channels", 0) == len(CLASSES))
    last.bias -= network(torch.randn(1, 3, SIZE, SIZE)).logits.mean(dim=(0, 2, 3))


def save_tiny(folder: Path, kind: str, *, seed: int = 0, **processor: Any) -> Path:
    """A network of ``CLASSES`` and its image processor, whose settings are ``processor``, at ``folder / kind``."""
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    network, of_images = KINDS[kind]
    labels = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: n for n, name in enumerate(CLASSES)}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = network(labels)
        _spread(made.eval())
    made.save_pretrained(folder / kind)
    of_images(**{"size": SQUARE, **processor}).save_pretrained(folder / kind)
    return folder / kind
