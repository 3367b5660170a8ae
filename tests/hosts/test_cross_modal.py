"""The cross-modal probe: its texts, its two halves by hand, and draws that a split of the batch cannot change."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from text_world import NAMES, OTHERS, make_table, noise

from ogenlib.hosts import Batch, CrossModal, ZeroShot, zero_shot_weights
from ogenlib.runs.saved import load_run
from ogenlib.towers import EmbeddingTable

TEMPLATES = ["an icon of a {}.", "the {} symbol"]


def test_terms_by_hand() -> None:
    table = EmbeddingTable(["a", "b"], torch.eye(2), logit_scale=2.0)
    host = CrossModal(table, ["a", "b"], "{}")
    with torch.no_grad():
        host.residual[0] = torch.tensor([2.0, 4.0])  # (1, 0) + (2, 4) = (3, 4), of length 5
    torch.testing.assert_close(host.class_weights(), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    terms = host.losses(Batch(torch.tensor([0]), features=torch.tensor([[0.0, 3.0]])))
    assert set(terms) == {"ce", "text_ce"}
    assert terms["ce"].item() == pytest.approx(math.log(1 + math.exp(0.4)) / 2, rel=1e-6)
    # The texts are (1, 0), which scores 1.2 and 0, and (0, 1), which scores 1.6 and 2.
    texts = math.log(1 + math.exp(-1.2)) + math.log(1 + math.exp(-0.4))
    assert terms["text_ce"].item() == pytest.approx(texts / 4, rel=1e-6)


def test_texts_are_every_name_in_every_template(clip) -> None:
    host = CrossModal(clip, ["dog", "train"], TEMPLATES, extra_names=["fox"])
    names = ["dog", "train", "fox"]
    expected = torch.stack([zero_shot_weights(clip, names, t) for t in TEMPLATES])
    torch.testing.assert_close(host.texts(), expected, atol=1e-6, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(CrossModal(clip, ["dog", "train"], TEMPLATES, extra_names=["fox"]).texts(), host.texts())
    assert set(host.state_dict()) == {"residual"}


def test_drawn_texts_do_not_depend_on_how_a_batch_is_divided(clip) -> None:
    host = CrossModal(clip, ["dog", "train"], TEMPLATES, text_rows=5)
    z = F.normalize(torch.randn(6, clip.embed_dim, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels = torch.arange(6) % 2

    def terms(rows: slice) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        generator = torch.Generator().manual_seed(7)
        return host.losses(Batch(labels[rows], features=z[rows], generator=generator)), generator.get_state()

    whole, state = terms(slice(0, 6))
    parts = [terms(slice(0, 2)), terms(slice(2, 6))]
    assert all(torch.equal(state, other) for _, other in parts)
    for name, value in whole.items():
        torch.testing.assert_close((2 * parts[0][0][name] + 4 * parts[1][0][name]) / 6, value)
    assert not torch.equal(terms(slice(0, 6))[0]["text_ce"], host.losses(Batch(labels, features=z))["text_ce"])


def test_extra_names_learn_from_their_texts_alone() -> None:
    host = CrossModal(make_table(), NAMES, "{}", extra_names=OTHERS)
    batch = Batch(torch.tensor([0, 1, 2]), features=noise(torch.Size((3, 8))))
    terms = host.losses(batch)
    (of_images,) = torch.autograd.grad(terms["ce"], [host.residual], retain_graph=True)
    (of_texts,) = torch.autograd.grad(terms["text_ce"], [host.residual])
    assert of_images[3:].abs().sum() == 0 and (of_images[:3].abs().sum(1) > 0).all()
    assert (of_texts.abs().sum(1) > 0).all()
    given = host.losses(batch, w=host.class_weights())
    torch.testing.assert_close(given["text_ce"], terms["text_ce"])


def test_it_starts_as_zero_shot_and_new_names_stay_there() -> None:
    host = CrossModal(make_table(), NAMES, "{}")
    zero_shot = ZeroShot(host.clip, NAMES, "{}")
    torch.testing.assert_close(host.class_weights(), zero_shot.class_weights(), atol=1e-6, rtol=0)
    with torch.no_grad():
        host.residual.add_(noise(host.residual.shape))
    torch.testing.assert_close(host.class_weights(OTHERS), zero_shot.class_weights(OTHERS), atol=1e-6, rtol=0)


def test_save_and_load(tmp_path) -> None:
    host = CrossModal(make_table(), NAMES, "{}", text_rows=4, extra_names=("bus",))
    with torch.no_grad():
        host.residual.add_(noise(host.residual.shape))
    host.save(tmp_path)
    again = load_run(tmp_path, clip=host.clip)
    assert again.config() == host.config() == {"templates": ["{}"], "extra_names": ["bus"], "text_rows": 4}
    assert torch.equal(again.class_weights(), host.class_weights())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"text_rows": 0}, "text_rows=0: must be 1 or more"), ({"extra_names": "bus"}, "pass a list of names")],
)
def test_bad_options_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CrossModal(make_table(), NAMES, "{}", **options)
