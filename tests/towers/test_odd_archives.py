"""State dicts that are nearly OpenAI's: shapes that no CLIP has end in one line that names the archive."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ogenlib.towers import convert_openai

from .test_convert import openai_weights

TABLE, PATCHES = "token_embedding.weight", "visual.conv1.weight"
ODD: dict[str, tuple[str, dict[str, Tensor | None], str]] = {
    "no layers": ("vit", {"transformer.resblocks": None}, "transformer.resblocks.* missing"),
    "no image layers": ("vit", {"visual.transformer": None}, "visual.transformer.resblocks.* missing"),
    "no stage": ("resnet", {"visual.layer3": None}, "visual.layer3.* missing"),
    "no patches": ("vit", {PATCHES: None}, "visual.conv1.weight is missing"),
    "no image positions": ("vit", {"visual.positional_embedding": None}, "visual.positional_embedding is missing"),
    "a number for a norm": ("vit", {"ln_final.weight": torch.tensor(1.0)}, "ln_final.weight is ()"),
    "a row for a table": ("vit", {TABLE: torch.zeros(8)}, "token_embedding.weight is (8,)"),
    "an empty table": ("vit", {TABLE: torch.zeros(0, 64)}, "token_embedding.weight is (0, 64)"),
    "a vast empty table": ("vit", {TABLE: torch.zeros(10**9, 0)}, "token_embedding.weight is (1000000000, 0)"),
    "a flat kernel": ("vit", {PATCHES: torch.zeros(128, 3)}, "visual.conv1.weight is (128, 3)"),
    "no pixels": ("vit", {PATCHES: torch.zeros(128, 3, 0, 0)}, "visual.conv1.weight is (128, 3, 0, 0)"),
    "one position": ("vit", {"visual.positional_embedding": torch.zeros(1, 128)}, "has 1 rows"),
    "no square": ("vit", {"visual.positional_embedding": torch.zeros(8, 128)}, "has 8 rows"),
    "narrow": ("vit", {"ln_final.weight": torch.zeros(63)}, "63 wide"),
    "another width": ("vit", {"ln_final.weight": torch.zeros(128)}, "does not fit"),
    "wide and short": ("vit", {PATCHES: torch.zeros(64 * 20_000, 3, 1, 1)}, "do not belong together"),
    "not finite": ("vit", {"ln_final.bias": torch.full((64,), torch.nan)}, "not finite"),
    "logit scale of two": ("vit", {"logit_scale": torch.zeros(2)}, "does not fit"),
    "names without numbers": ("vit", {"transformer.resblocks.": torch.zeros(2)}, "does not fit"),
}  # fmt: skip


@pytest.mark.parametrize("kind, changes, part", ODD.values(), ids=ODD)
def test_odd_shapes_are_refused(tmp_path: Path, kind: str, changes: dict[str, Tensor | None], part: str) -> None:
    _, weights = openai_weights(kind)
    for name, value in changes.items():
        if value is None:
            weights = {key: kept for key, kept in weights.items() if not key.startswith(name)}
        else:
            weights[name] = value
    archive = tmp_path / "odd.pt"
    torch.save(weights, archive)
    with pytest.raises(ValueError) as caught:
        convert_openai(archive, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(str(archive)) and "\n" not in message and part in message, message
    assert [entry.name for entry in tmp_path.iterdir()] == ["odd.pt"]
