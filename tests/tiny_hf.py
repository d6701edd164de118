"""Repositories of transformers, tiny and random, as ``save_pretrained`` writes them: a model type in, a folder out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BeitConfig,
    BeitForSemanticSegmentation,
    BeitImageProcessor,
    CLIPTokenizer,
    ConvNextConfig,
    DetrConfig,
    DPTConfig,
    DPTForSemanticSegmentation,
    DPTImageProcessor,
    EomtConfig,
    EomtForUniversalSegmentation,
    EomtImageProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    MaskFormerImageProcessor,
    OneFormerConfig,
    OneFormerForUniversalSegmentation,
    OneFormerImageProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    SwinConfig,
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


def _swin() -> SwinConfig:
    stages = [f"stage{number}" for number in range(1, 5)]
    return SwinConfig(
        embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4, image_size=SIZE, out_features=stages
    )


_DECODER = {"encoder_feedforward_dim": 16, "encoder_layers": 1, "num_attention_heads": 2, "dim_feedforward": 16}
QUERIES = 6


def _maskformer(labels: dict[str, Any]) -> Any:
    decoder = DetrConfig(
        **{"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": QUERIES},
        **{
            f"{side}_{what}": n
            for side in ("encoder", "decoder")
            for what, n in (("attention_heads", 2), ("ffn_dim", 16))
        },
    )
    more = {"fpn_feature_size": 32, "mask_feature_size": 32}
    return MaskFormerForInstanceSegmentation(
        MaskFormerConfig(backbone_config=_swin(), decoder_config=decoder, **more, **labels)
    )


def _mask2former(labels: dict[str, Any]) -> Any:
    more = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "decoder_layers": 2, "num_queries": QUERIES}
    return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=_swin(), **_DECODER, **more, **labels))


def _oneformer(labels: dict[str, Any]) -> Any:
    more = {"conv_dim": 32, "mask_dim": 32, "hidden_dim": 32, "decoder_layers": 3, "num_queries": QUERIES}
    text = {
        f"text_encoder_{name}": n for name, n in (("width", 16), ("num_layers", 1), ("proj_layers", 1), ("n_ctx", 2))
    }
    text |= {"text_encoder_context_length": 7, "text_encoder_vocab_size": 50, "task_seq_len": 9}
    return OneFormerForUniversalSegmentation(
        OneFormerConfig(
            backbone_config=_swin(), query_dec_layers=1, is_training=False, **_DECODER, **more, **text, **labels
        )
    )


def _eomt(labels: dict[str, Any]) -> Any:
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIZE, "patch_size": 8}
    more = {"num_blocks": 1, "num_queries": QUERIES, "num_upscale_blocks": 1}
    return EomtForUniversalSegmentation(EomtConfig(**small, **more, **labels))


def _save_tokenizer(folder: Path) -> None:
    """Of letters, as CLIP's begins."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    marks = ["<|startoftext|>", "<|endoftext|>"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *marks, "th", "the</w>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=[("t", "h"), ("th", "e</w>")]).save_pretrained(folder)


UNIVERSAL: dict[str, tuple[Callable[[dict[str, Any]], Any], Callable[..., Any]]] = {
    "maskformer": (_maskformer, MaskFormerImageProcessor),
    "mask2former": (_mask2former, Mask2FormerImageProcessor),
    "oneformer": (_oneformer, OneFormerImageProcessor),
    "eomt": (_eomt, EomtImageProcessor),
}
KINDS: dict[str, tuple[Callable[[dict[str, Any]], Any], Callable[..., Any]]] = {
    "segformer": (_segformer, SegformerImageProcessor),
    "upernet": (_upernet, SegformerImageProcessor),
    "beit": (_beit, BeitImageProcessor),
    "dpt": (_dpt, DPTImageProcessor),
    **UNIVERSAL,
}


@torch.no_grad()
def _spread(network: Any, classes: int) -> None:
    """Weights far from the small ones that a training starts from, and classes that win some pixels each."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    queries = [layer for layer in network.modules() if getattr(layer, "out_features", 0) == classes + 1]
    if queries:
        queries[-1].bias[-1] -= 2  # no object
        return
    named = ((name, layer) for name, layer in network.named_modules() if not name.startswith("auxiliary"))
    *_, last = (layer for _, layer in named if getattr(layer, "out_channels", 0) == classes)
    last.bias -= network(torch.randn(1, 3, SIZE, SIZE)).logits.mean(dim=(0, 2, 3))


def save_tiny(folder: Path, kind: str, *, seed: int = 0, labels: Sequence[str] = CLASSES, **processor: Any) -> Path:
    """A network of ``labels`` and its image processor, whose settings are ``processor``, at ``folder / kind``."""
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    network, of_images = KINDS[kind]
    known = {"id2label": dict(enumerate(labels)), "label2id": {name: n for n, name in enumerate(labels)}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = network(known)
        _spread(made.eval(), len(labels))
        if kind == "oneformer":
            _save_tokenizer(folder / kind)
    made.save_pretrained(folder / kind)
    square = (
        {"size": {"shortest_edge": SIZE, "longest_edge": SIZE}, "do_pad": True} if kind == "eomt" else {"size": SQUARE}
    )
    of_images(**{**square, **processor}).save_pretrained(folder / kind)
    return folder / kind
