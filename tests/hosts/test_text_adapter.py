"""TextAdapter: its start, its formula, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from text_world import NAMES, OTHERS, make_table, noise

from ogenlib.hosts import Batch, TextAdapter, ZeroShot
from ogenlib.runs.saved import load_run
from ogenlib.towers import EmbeddingTable


def test_it_starts_as_zero_shot(clip) -> None:
    for model, templates in ((clip, ["an icon of a {}.", "the {} symbol"]), (make_table(), "{}")):
        start = TextAdapter(model, NAMES, templates)
        zero_shot = ZeroShot(model, NAMES, templates)
        for names in (None, OTHERS):
            w = zero_shot.class_weights(names)
            assert torch.equal(start.class_weights(names), F.normalize(w, dim=-1))
            torch.testing.assert_close(start.class_weights(names), w, atol=1e-6, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
def test_the_weights_by_hand(bias: bool) -> None:
    table = EmbeddingTable(["a"], torch.tensor([[0.6, 0.8]]))
    host = TextAdapter(table, ["a"], "{}", hidden=2, ratio=0.5, bias=bias)
    with torch.no_grad():
        host.down.copy_(torch.tensor([[1.0, 2.0], [-3.0, 0.0]]))
        host.up.copy_(torch.tensor([[1.0, 9.0], [-1.0, 9.0]]))
        if bias:
            host.down_bias.copy_(torch.tensor([0.4, 1.8]))
            host.up_bias.copy_(torch.tensor([0.0, 5.0]))
    # down t = (2.2, -1.8), relu (2.2, 0), up (2.2, -2.2); t + half of that = (1.7, -0.3)
    # with biases: relu (2.6, 0), up (2.6, -2.6 + 5); t + half of that = (1.9, 2.0)
    x, y = (1.9, 2.0) if bias else (1.7, -0.3)
    length = math.hypot(x, y)
    torch.testing.assert_close(host.class_weights(), torch.tensor([[x / length, y / length]]))


def test_the_loss_by_hand() -> None:
    table = EmbeddingTable(["a", "b"], torch.eye(2), logit_scale=2.0)
    host = TextAdapter(table, ["a", "b"], "{}")
    terms = host.losses(Batch(torch.tensor([0, 0]), features=torch.tensor([[1.0, 0.0], [0.0, 5.0]])))
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2
    assert set(terms) == {"ce"} and terms["ce"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_reach_both_maps_and_nothing_else(bias: bool) -> None:
    table = make_table()
    host = TextAdapter(table, NAMES, "{}", bias=bias)
    batch = Batch(torch.tensor([0, 1, 2]), features=noise(torch.Size((3, 8))))
    host.losses(batch)["ce"].backward()
    assert host.up.grad.abs().sum() > 0 and host.down.grad.abs().sum() == 0  # hidden by the zero start
    with torch.no_grad():
        host.up.add_(noise(host.up.shape))
    host.losses(batch)["ce"].backward()
    assert host.down.grad.abs().sum() > 0
    own = {"down", "up", *(("down_bias", "up_bias") if bias else ())}
    assert set(host.trainable()) == set(host.state_dict()) == own
    assert all(p.grad.abs().sum() > 0 for p in host.parameters())
    assert all(b.grad is None for b in table.buffers())


def test_new_names_go_through_the_same_maps() -> None:
    host = TextAdapter(make_table(), NAMES, "{}")
    with torch.no_grad():
        host.up.add_(noise(host.up.shape))
    assert not torch.allclose(host.class_weights(OTHERS), ZeroShot(host.clip, OTHERS, "{}").class_weights(), atol=0.01)
    whole = host.class_weights([*NAMES, *OTHERS])
    torch.testing.assert_close(whole[3:], host.class_weights(OTHERS), atol=1e-6, rtol=0)


def test_the_start_is_seeded() -> None:
    def down(seed: int | None) -> torch.Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return TextAdapter(make_table(), NAMES, "{}", generator=generator).down

    state = torch.get_rng_state()
    assert torch.equal(down(None), down(None)) and torch.equal(down(1), down(1))
    assert not torch.equal(down(1), down(2))
    assert down(1).abs().max() <= 8**-0.5
    assert torch.equal(torch.get_rng_state(), state)


def test_sizes(clip) -> None:
    host = TextAdapter(clip, NAMES, "{}")
    assert host.down.shape == (clip.embed_dim // 4, clip.embed_dim) and host.up.shape == host.down.T.shape
    assert TextAdapter(make_table(), NAMES, "{}", hidden=3).down.shape == (3, 8)
    assert sum(p.numel() for p in TextAdapter(make_table(), NAMES, "{}").parameters()) == 2 * 8 * 2 + 2 + 8
    assert sum(p.numel() for p in TextAdapter(make_table(), NAMES, "{}", bias=False).parameters()) == 2 * 8 * 2


@pytest.mark.parametrize("bias", [False, True])
def test_save_and_load(tmp_path, bias: bool) -> None:
    table = make_table()
    host = TextAdapter(table, NAMES, "{}", hidden=3, ratio=0.25, bias=bias)
    with torch.no_grad():
        host.up.add_(noise(host.up.shape))
    host.save(tmp_path)
    again = load_run(tmp_path, clip=table)
    assert again.config() == host.config() == {"templates": ["{}"], "hidden": 3, "ratio": 0.25, "bias": bias}
    assert torch.equal(again.class_weights(), host.class_weights())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden=0: must be 1 or more"),
        ({"ratio": 0.0}, r"ratio=0\.0: must be a positive number"),
        ({"ratio": float("inf")}, "ratio=inf"),
        ({"templates": "no slot"}, "must each hold"),
    ],
)
def test_bad_options_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextAdapter(make_table(), NAMES, **{"templates": "{}", **options})


def test_names_the_table_lacks_are_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"'dogs' \(did you mean 'dog'\?\)"):
        TextAdapter(make_table(), ["dogs", "train"], "{}")
    with pytest.raises(ValueError, match="'lorry'"):
        TextAdapter(make_table(), NAMES, "{}").class_weights(["lorry"])
