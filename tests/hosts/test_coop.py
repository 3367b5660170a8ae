"""CoOp and zero-shot: prompts, starts and refusals."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ogenlib.hosts import CoOp, ZeroShot, zero_shot_weights

NAMES = ["dog", "red_apple", "train"]


def test_coop_started_from_words_is_zero_shot(clip) -> None:
    coop = CoOp(clip, NAMES, "an icon of a")
    zero_shot = ZeroShot(clip, NAMES, "an icon of a {}.")
    torch.testing.assert_close(coop.class_weights(), zero_shot.class_weights(), atol=1e-5, rtol=0)


def test_templates_are_averaged_on_the_sphere(clip) -> None:
    a, b = (zero_shot_weights(clip, NAMES, t) for t in ("a {}.", "the {} symbol"))
    both = zero_shot_weights(clip, NAMES, ["a {}.", "the {} symbol"])
    torch.testing.assert_close(both, F.normalize(a + b, dim=-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("templates", [[], ["no slot"], ["{} and {}"]])
def test_bad_templates_are_refused(clip, templates) -> None:
    with pytest.raises(ValueError, match=r"must each hold '\{\}' once"):
        ZeroShot(clip, NAMES, templates)


def test_random_start_is_seeded_and_small(clip) -> None:
    def start(seed: int) -> torch.Tensor:
        return CoOp(clip, NAMES, None, n_context=8, generator=torch.Generator().manual_seed(seed)).context

    assert torch.equal(start(1), start(1)) and not torch.equal(start(1), start(2))
    assert start(1).shape == (8, clip.text.width)
    assert start(1).std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("class_specific", [False, True])
def test_every_layout_trains(clip, position: str, class_specific: bool) -> None:
    coop = CoOp(clip, NAMES, "an icon of a", position=position, class_specific=class_specific)
    assert coop.context.shape == ((3, 4, clip.text.width) if class_specific else (4, clip.text.width))
    w = coop.class_weights()
    w[1].sum().backward()
    moved = coop.context.grad.abs().flatten(-2).sum(-1)
    if class_specific:
        assert moved[1] > 0 and moved[0] == 0 and moved[2] == 0
    else:
        assert moved > 0


def test_class_specific_context_knows_no_other_names(clip) -> None:
    coop = CoOp(clip, NAMES, "an icon of a", class_specific=True)
    torch.testing.assert_close(coop.class_weights(["train"]), coop.class_weights()[2:], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"has none for \['cat'\].*class_specific=False"):
        coop.class_weights(["cat"])


def test_chunks_do_not_change_the_weights(clip) -> None:
    whole, parts = (CoOp(clip, NAMES, "an icon of a", chunk=c) for c in (None, 2))
    torch.testing.assert_close(whole.class_weights(), parts.class_weights(), atol=1e-5, rtol=0)


def test_wrong_context_is_refused_before_training(clip) -> None:
    with pytest.raises(ValueError, match="is 4 tokens long but n_context=7"):
        CoOp(clip, NAMES, "an icon of a", n_context=7)
    with pytest.raises(ValueError, match="at least one token"):
        CoOp(clip, NAMES, None, n_context=0)
    with pytest.raises(ValueError, match="red_apple"):
        CoOp(clip, NAMES, None, n_context=clip.text.context_length - 4)


def test_presets(clip) -> None:
    assert CoOp.base_to_new(clip, NAMES).n_context == 4
    assert CoOp.paper(clip, NAMES).n_context == 16
    assert CoOp.paper(clip, NAMES, n_context=5).n_context == 5


def test_learning_rate_follows_the_size_of_the_embeddings(clip) -> None:
    coop = CoOp(clip, ["dog"], "an icon of a")
    (token,) = coop.clip.tokenizer(["dog"])[0, 1:2].tolist()
    size = clip.model.token_embedding.weight[token].square().mean().sqrt().item()
    assert coop.train_settings()["lr"] == pytest.approx(2e-3 * size / 0.02, rel=1e-5)
