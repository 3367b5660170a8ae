"""TaskRes: its start, its formula, names without a row, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from text_world import NAMES, OTHERS, make_table, noise

from ogenlib.hosts import Batch, TaskRes, ZeroShot
from ogenlib.runs.saved import load_run
from ogenlib.towers import EmbeddingTable


def moved(host: TaskRes) -> TaskRes:
    with torch.no_grad():
        host.residual.add_(noise(host.residual.shape))
    return host


def test_it_starts_as_zero_shot(clip) -> None:
    for model, templates in ((clip, ["an icon of a {}.", "the {} symbol"]), (make_table(), "{}")):
        start, zero_shot = TaskRes(model, NAMES, templates), ZeroShot(model, NAMES, templates)
        for names in (None, OTHERS):
            w = zero_shot.class_weights(names)
            assert torch.equal(start.class_weights(names), F.normalize(w, dim=-1))
            torch.testing.assert_close(start.class_weights(names), w, atol=1e-6, rtol=0)


def test_weights_and_loss_by_hand() -> None:
    table = EmbeddingTable(["a", "b"], torch.eye(2), logit_scale=2.0)
    host = TaskRes(table, ["a", "b"], "{}", alpha=0.5)
    with torch.no_grad():
        host.residual[0] = torch.tensor([4.0, 8.0])  # (1, 0) + half of it = (3, 4), of length 5
    torch.testing.assert_close(host.class_weights(), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    terms = host.losses(Batch(torch.tensor([0]), features=torch.tensor([[0.0, 3.0]])))
    assert set(terms) == {"ce"}  # scores 0.8 and 1.0, times 2
    assert terms["ce"].item() == pytest.approx(math.log(1 + math.exp(0.4)), rel=1e-6)


def test_names_without_a_row_keep_their_zero_shot_weights() -> None:
    host = moved(TaskRes(make_table(), NAMES, "{}"))
    zero_shot = ZeroShot(host.clip, NAMES, "{}")
    torch.testing.assert_close(host.class_weights(OTHERS), zero_shot.class_weights(OTHERS), atol=1e-6, rtol=0)
    mixed = host.class_weights(["fox", "train", "dog"])
    torch.testing.assert_close(mixed[0], zero_shot.class_weights(["fox"])[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed[1:], host.class_weights()[[2, 0]], atol=1e-6, rtol=0)
    assert (mixed[1:] - zero_shot.class_weights(["train", "dog"])).norm(dim=-1).min() > 0.01


def test_extra_names_have_rows_that_only_they_train() -> None:
    host = TaskRes(make_table(), NAMES, "{}", extra_names=OTHERS)
    assert host.residual.shape == (5, 8)
    host.losses(Batch(torch.tensor([0, 1, 2]), features=noise(torch.Size((3, 8)))))["ce"].backward()
    assert (host.residual.grad[:3].abs().sum(1) > 0).all() and host.residual.grad[3:].abs().sum() == 0
    host.residual.grad = None
    host.class_weights(["bus"])[0, 0].backward()
    assert host.residual.grad[:4].abs().sum() == 0 and host.residual.grad[4].abs().sum() > 0
    assert set(host.trainable()) == set(host.state_dict()) == {"residual"}


def test_save_and_load(tmp_path) -> None:
    host = moved(TaskRes(make_table(), NAMES, "{}", alpha=0.25, extra_names=("bus",)))
    host.save(tmp_path)
    again = load_run(tmp_path, clip=host.clip)
    assert again.config() == host.config() == {"templates": ["{}"], "alpha": 0.25, "extra_names": ["bus"]}
    for names in (None, OTHERS):
        assert torch.equal(again.class_weights(names), host.class_weights(names))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, r"alpha=0\.0: must be a positive number"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"extra_names": "bus"}, "extra_names='bus': pass a list"),
        ({"extra_names": ["bus", "dog"]}, r"hold \['dog'\] more than once"),
        ({"extra_names": ["lorry"]}, "'lorry'"),
    ],
)
def test_bad_options_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskRes(make_table(), NAMES, "{}", **options)
