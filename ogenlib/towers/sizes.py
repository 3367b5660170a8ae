"""How large a model its configuration asks for, compared with its weights before memory is taken for it."""

from __future__ import annotations

import reprlib
from math import prod
from pathlib import Path
from typing import Any

_LARGEST = 2**31
_SIZES = (
    "width", "layers", "heads", "head_width", "patch_size", "image_size", "context_length", "vocab_size",
    "attn_pooler_queries", "attn_pooler_heads",
)  # fmt: skip
MAX_BLOCKS = 1000  # of a tower; the deepest of open_clip have 64
PER_BYTE, ALWAYS = 8, 10**8  # numbers that a model may have for each byte of its weights, and whatever these are


def check_sizes(config: dict[str, Any], where: Path | str, weights: Path, hugging_face: dict[str, Any]) -> None:
    """Refuse a model that is far larger than the file of its weights.

    Args:
        config: `model_cfg`, of which keys and types are known to be right.
        hugging_face: the configuration of its text tower, where that is one of transformers'.

    Raises:
        ValueError: names `where` and the size.
    """
    vision, text = config["vision_cfg"], config["text_cfg"]
    decoder = config.get("multimodal_cfg") or {}
    for part, settings in (("vision_cfg", vision), ("text_cfg", text), ("multimodal_cfg", decoder)):
        for key in _SIZES:
            _check_size(settings.get(key), f"{part}.{key}", where)
        if sum(_numbers(settings.get("layers"))) > MAX_BLOCKS:
            raise ValueError(f"{where}: {part}.layers is {settings['layers']!r}, expected {MAX_BLOCKS} at most")
    _check_size(config["embed_dim"], "embed_dim", where)
    asked = _image(vision, config["embed_dim"]) + _text(text, config["embed_dim"]) + _of_transformers(hugging_face)
    if decoder:
        asked += _text({**decoder, "vocab_size": text.get("vocab_size")}, config["embed_dim"])
    held = weights.stat().st_size
    if asked > max(PER_BYTE * held, ALWAYS):
        raise ValueError(
            f"{where} describes a model of {asked:.2g} numbers at least, and {weights} has {held} bytes: "
            "they do not belong together"
        )


def _check_size(value: Any, key: str, where: Path | str) -> None:
    if not all(1 <= number < _LARGEST for number in _numbers(value)):
        raise ValueError(f"{where}: {key} is {reprlib.repr(value)}, expected 1 or more, below {_LARGEST}")


def _image(vision: dict[str, Any], embed_dim: int) -> float:
    width = vision.get("width") or 768
    if vision.get("timm_model_name"):
        return 64 * embed_dim  # the rest has the size that timm gives it
    sizes, layers = _numbers(vision.get("image_size") or 224), _numbers(vision.get("layers") or 12)
    if isinstance(vision.get("layers"), list | tuple):  # a ResNet: its last map is 32 times smaller and wider
        return sum(layers) * width**2 + prod(size / 32 for size in _square(sizes)) * 32 * width + 32 * width * embed_dim
    patch = vision.get("patch_size") or 16
    grid = prod(size / patch for size in _square(sizes))
    blocks = layers[0] * _block(width, vision.get("mlp_ratio"))
    queries = (vision.get("attn_pooler_queries") or 256) * embed_dim if vision.get("attentional_pool") else 0
    return blocks + (grid + 3 * patch**2 + embed_dim) * width + queries


def _text(text: dict[str, Any], embed_dim: int) -> float:
    context = text.get("context_length") or 77
    if text.get("hf_model_name"):
        return context**2
    width = text.get("width") or 512
    vectors = (text.get("vocab_size") or 49408) + context + embed_dim
    blocks = (text.get("layers") or 12) * _block(width, text.get("mlp_ratio"))
    return blocks + vectors * width + context**2  # the last is its mask


def _of_transformers(config: dict[str, Any]) -> float:
    """Encoders and decoders as transformers names their parts."""

    def largest(*names: str) -> int:
        given = (abs(config[name]) for name in names if isinstance(config.get(name), int))
        return min(max(given, default=0), _LARGEST)

    width = largest("hidden_size", "d_model")
    inner = largest("num_heads", "num_attention_heads", "encoder_attention_heads") * largest("d_kv", "head_dim")
    wide = largest("intermediate_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim")
    deep = largest("num_hidden_layers", "num_layers", "encoder_layers")
    deep += largest("num_decoder_layers", "decoder_layers")
    vectors = sum(largest(name) for name in ("vocab_size", "max_position_embeddings", "type_vocab_size"))
    # A block's modules take memory whatever their width is.
    return vectors * width + deep * (4 * width**2 + 2 * width * wide + 4 * width * inner + 10**5)


def _block(width: int, mlp_ratio: float | None) -> float:
    return (4 + 2 * abs(mlp_ratio or 4.0)) * width**2


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, list | tuple) else [value]
    return [number for number in values if isinstance(number, int | float)]


def _square(sizes: list[float]) -> list[float]:
    return sizes * 2 if len(sizes) == 1 else sizes
