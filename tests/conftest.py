"""Settings of all tests."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from hypothesis import settings

from ogenlib.data import FeatureBank
from ogenlib.towers import Backbone, load_backbone

TOY_NAMES = ("dog", "red apple", "train", "hammer")

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker for each core: more threads would only wait for each other
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start

# No deadline: how long an example takes depends on the machine. Derandomized: a run says the same twice.
settings.register_profile("ogenlib", deadline=None, derandomize=True)
settings.load_profile("ogenlib")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: a core that starts the longest test last leaves the other idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def clip() -> Backbone:
    """The bundled model."""
    return load_backbone("ogen-tiny")


@pytest.fixture(scope="session")
def toy_bank(clip: Backbone) -> FeatureBank:
    """Two views of four images of each of four classes.

    Noise around the text feature of the *next* class: zero-shot is wrong, so there is something to learn.
    """
    generator = torch.Generator().manual_seed(0)
    centres = clip.encode_text([f"an icon of a {n}." for n in TOY_NAMES])
    labels = torch.arange(len(TOY_NAMES)).repeat_interleave(4)
    noise = torch.randn(len(labels), 2, clip.embed_dim, generator=generator)
    features = F.normalize(centres.roll(-1, 0)[labels][:, None] + 0.1 * noise, dim=-1)
    keys = [f"toy/{i}" for i in range(len(labels))]
    made_with = {"backbone": clip.fingerprint(), "data": {"toy": 0}, "views": 2}
    return FeatureBank(features, labels, TOY_NAMES, ["toy"] * len(labels), keys, made_with)
