"""Tiny random models of every class open_clip builds, and tokenizers for them."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from ogenlib.towers import TextTower

VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 3}
WORDS = {**TEXT, "vocab_size": 300}
TIMM = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "image_size": 160}
CONV = {
    "timm_model_name": "test_convnext",
    "timm_model_pretrained": False,
    "timm_pool": "avg",
    "timm_proj": "linear",
    "image_size": 160,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "clip": {"vision_cfg": VIT, "text_cfg": TEXT},
    "clip-quick": {"vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True},
    "clip-last": {"vision_cfg": VIT, "text_cfg": {**WORDS, "pool_type": "last"}},
    "clip-first": {"vision_cfg": VIT, "text_cfg": {**WORDS, "pool_type": "first", "no_causal_mask": True}},
    "clip-eos": {"vision_cfg": VIT, "text_cfg": {**WORDS, "pool_type": "eos", "eos_id": 2}},
    "clip-both-ways": {"vision_cfg": VIT, "text_cfg": {**WORDS, "no_causal_mask": True}},
    "clip-layerscale": {"vision_cfg": VIT, "text_cfg": {**TEXT, "ls_init_value": 0.5}},
    "clip-scaled-heads": {"vision_cfg": VIT, "text_cfg": {**TEXT, "scale_heads": True, "scale_attn": True}},
    "clip-custom-blocks": {"vision_cfg": VIT, "text_cfg": {**TEXT, "block_type": "custom"}},
    "resnet": {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None,
                              "head_width": 32}, "text_cfg": WORDS},
    "eva": {"vision_cfg": {**TIMM, "timm_pool": "token", "timm_proj": None}, "text_cfg": TEXT, "custom_text": True,
            "embed_dim": 64},
    "siglip": {"vision_cfg": {**TIMM, "timm_pool": "map", "timm_proj": "none"}, "custom_text": True,
               "init_logit_bias": -10, "embed_dim": 64,
               "text_cfg": {**WORDS, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}},
    "mobileclip": {"vision_cfg": CONV, "text_cfg": {**WORDS, "no_causal_mask": True}, "custom_text": True},
    "projection-none": {"vision_cfg": VIT, "text_cfg": {**WORDS, "proj_type": "none"}, "custom_text": True,
                        "embed_dim": 64},
    "coca": {"vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
             "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True}, "custom_text": True,
             "multimodal_cfg": {**TEXT, "attn_pooler_heads": 4}},
}  # fmt: skip

CAUSAL = ("clip", "clip-quick", "clip-last", "clip-eos", "clip-layerscale", "clip-custom-blocks", "eva")
NATIVE = tuple(CONFIGS)
EVERY = (*NATIVE, "roberta")


class WordTokenizer:
    """One id per word or punctuation mark; start, end and padding ids as a tower wants them."""

    def __init__(self, context_length: int, sot: int | None, eot: int, pad: int, first: int = 5) -> None:
        self.context_length, self.sot, self.eot, self.pad, self.first = context_length, sot, eot, pad, first

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        length = context_length or self.context_length
        rows = []
        for text in [texts] if isinstance(texts, str) else texts:
            words = re.findall(r"\w+|[^\w\s]", text.lower())
            start = [] if self.sot is None else [self.sot]
            ids = [*start, *(self.first + zlib.crc32(word.encode()) % 280 for word in words)][: length - 1]
            rows.append([*ids, self.eot] + [self.pad] * (length - 1 - len(ids)))
        return torch.tensor(rows)


@dataclass(frozen=True)
class Tiny:
    kind: str
    model: Any
    tokenizer: Any
    tower: TextTower


def shake(model: nn.Module, seed: int = 0) -> Any:
    """Move every parameter off its special start value: norms from 1, biases and class tokens from 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_((0.05 * noise).to(parameter.dtype))
    return model.eval().requires_grad_(False)


def word_tokenizer(kind: str) -> Any:
    if kind == "siglip":
        return WordTokenizer(24, None, 1, 1)
    if kind == "clip-eos":
        return WordTokenizer(24, 3, 2, 0)
    vocabulary = CONFIGS[kind]["text_cfg"]["vocab_size"]
    if vocabulary == TEXT["vocab_size"]:
        return open_clip.SimpleTokenizer(context_length=24)
    return WordTokenizer(24, 298, 299, 0)


def write_roberta(folder: Path) -> None:
    """A two-layer RoBERTa configuration with a word tokenizer, enough to build both offline."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "x",
        "a",
        "an",
        "of",
        "photo",
        "icon",
        "dog",
        "cat",
        "big",
        "red",
        "fox",
        ".",
        "blue",
        "sky",
        "house",
        "7",
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    transformers.RobertaConfig(
        vocab_size=len(words),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=80,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    ).save_pretrained(folder)


def hugging_face_tokenizer(name: str) -> Any:
    """open_clip's own wrapper; where its call is too old for the installed transformers, the same call anew."""
    tokenizer = open_clip.get_tokenizer(name)
    try:
        tokenizer(["a"])
    except AttributeError:
        inner = tokenizer.tokenizer

        def call(texts: Sequence[str], context_length: int = 24) -> Tensor:
            options = {"max_length": context_length, "padding": "max_length", "truncation": True}
            return inner(list(texts), return_tensors="pt", **options).input_ids

        return call
    return tokenizer


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """open_clip names of all the tiny configurations."""
    folder = tmp_path_factory.mktemp("configs")
    names = {}
    for kind, config in CONFIGS.items():
        names[kind] = f"ogenlib-test-{kind}"
        (folder / f"{names[kind]}.json").write_text(json.dumps({"embed_dim": 48, **config}))
    open_clip.add_model_config(folder)
    return names


@pytest.fixture(scope="session")
def tiny(registry: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """`tiny(kind)`: a model, its tokenizer and its text tower, built once."""
    built: dict[str, Tiny] = {}

    def build(kind: str) -> Tiny:
        if kind in built:
            return built[kind]
        if kind == "roberta":
            folder = tmp_path_factory.mktemp("roberta")
            write_roberta(folder)
            text = {
                "hf_model_name": str(folder),
                "hf_tokenizer_name": str(folder),
                "context_length": 24,
                "hf_pooler_type": "mean_pooler",
            }
            config = {"embed_dim": 48, "vision_cfg": VIT, "text_cfg": text}
            path = folder / "ogenlib-test-roberta.json"
            path.write_text(json.dumps(config))
            open_clip.add_model_config(path)
            name = path.stem
            torch.manual_seed(0)
            model = open_clip.create_model(name, pretrained_text=False)
            tokenizer: Any = hugging_face_tokenizer(name)
        else:
            name, tokenizer = registry[kind], word_tokenizer(kind)
            torch.manual_seed(0)
            try:
                model = open_clip.create_model(name)
            except (AssertionError, TypeError):
                if kind != "clip-eos":
                    raise
                pytest.skip("open_clip before 3.1 does not pool at an end token by id")
        shake(model)
        built[kind] = Tiny(kind, model, tokenizer, TextTower.from_open_clip(model, tokenizer))
        return built[kind]

    return build
