"""The zero-shot weights that hosts start from and are held to."""

from __future__ import annotations

import torch

from ogenlib.hosts import ZeroShotAnchor, zero_shot_weights

TEMPLATES = ["an icon of a {}.", "the {} symbol"]


def test_each_list_of_names_is_encoded_once_and_old_ones_are_dropped(clip, monkeypatch) -> None:
    asked: list[int] = []
    encode = type(clip).encode_text
    monkeypatch.setattr(type(clip), "encode_text", lambda self, texts: asked.append(len(texts)) or encode(self, texts))
    anchor = ZeroShotAnchor(clip, TEMPLATES)
    first = anchor(["dog", "cat"])
    assert torch.equal(anchor(("dog", "cat")), first) and asked == [4]
    for i in range(20):
        anchor([f"name {i}"])
    assert torch.equal(anchor(["dog", "cat"]), first) and asked == [4, *[2] * 20, 4]


def test_it_does_not_depend_on_the_precision_of_who_asks_first(clip) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        w = ZeroShotAnchor(clip, TEMPLATES)(["dog", "cat"])
    assert torch.equal(w, zero_shot_weights(clip, ["dog", "cat"], TEMPLATES))
    assert w.dtype == torch.float32 and not w.requires_grad
