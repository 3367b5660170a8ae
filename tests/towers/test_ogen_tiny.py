"""The bundled model: what it is, and that open_clip alone opens it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ogenlib.towers
from ogenlib.towers import load_backbone

FOLDER = Path(ogenlib.towers.__file__).parent / "ogen_tiny"
ALONE = """
import json, sys
import open_clip, torch
model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{sys.argv[1]}")
model.eval()
tokenizer = open_clip.get_tokenizer(f"local-dir:{sys.argv[1]}")
from PIL import Image
pixels = preprocess(Image.linear_gradient("L").convert("RGB"))[None]
with torch.no_grad():
    text = model.encode_text(tokenizer(["an icon of a dog."]))[0].tolist()
    image = model.encode_image(pixels)[0].tolist()
print(json.dumps({"text": text, "image": image, "ours": "ogenlib" in sys.modules}))
"""


@pytest.mark.slow
def test_open_clip_alone_opens_it_and_agrees() -> None:
    from PIL import Image

    command = [sys.executable, "-c", ALONE, str(FOLDER)]
    alone = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    assert alone["ours"] is False
    clip = load_backbone("ogen-tiny")
    pixels = clip.preprocess(Image.linear_gradient("L").convert("RGB"))[None]
    text = clip.encode_text(["an icon of a dog."], normalize=False)[0]
    image = clip.encode_image(pixels, normalize=False)[0]
    torch.testing.assert_close(text, torch.tensor(alone["text"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(image, torch.tensor(alone["image"]), atol=1e-5, rtol=0)


def test_it_is_small_native_and_plain() -> None:
    from open_clip.transformer import VisionTransformer

    assert sum(p.stat().st_size for p in FOLDER.iterdir()) <= 25_000_000
    clip = load_backbone("ogen-tiny")
    assert isinstance(clip.model.visual, VisionTransformer) and clip.image.supports_visual_prompts
    assert clip.text.is_causal and clip.text.can_share_prefix and not clip.quick_gelu
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in clip.parameters())


def test_the_published_numbers_are_those_of_this_model() -> None:
    results = FOLDER.parents[2] / "benchmarks" / "results"
    if not results.is_dir():
        pytest.skip("benchmarks/results is not here: the package is tested without its repository")
    named = json.loads((results / "ogen-tiny.json").read_text())["protocol"]["backbone"]["weights_hash"]
    assert named == load_backbone("ogen-tiny").weights_hash
    bench = json.loads((results / "emoji-categories.json").read_text())["protocol"]["backbone"]["weights_hash"]
    assert bench == named


def test_it_knows_an_unseen_drawing() -> None:
    from ogenlib.data.emoji import open_drawing

    clip = load_backbone("ogen-tiny")
    names = ["apple", "dog face", "alarm clock", "sailboat"]
    codes = ["1f34e", "1f436", "23f0", "26f5"]
    pixels = torch.stack([clip.preprocess(open_drawing("noto", code)()) for code in codes])
    similarity = clip.encode_image(pixels) @ clip.encode_text([f"an icon of a {n}." for n in names]).T
    assert similarity.argmax(1).tolist() == [0, 1, 2, 3]
