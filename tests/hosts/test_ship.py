"""SHIP: the autoencoder's parts and loss by hand, what it learns, and CoOp's two halves."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ogenlib.hosts import SHIP, Batch, CoOp
from ogenlib.hosts.parts.ship_vae import PromptVAE, fit_vae, synthesize
from ogenlib.runs.saved import load_run
from ogenlib.towers import encode_prompts

NAMES = ["dog", "red apple", "train", "hammer"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken_vae(clip) -> PromptVAE:
    vae = PromptVAE(clip, seeded())
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=seeded(1)))
    return vae


def test_the_autoencoder_by_hand(clip) -> None:
    vae, names = shaken_vae(clip), ["dog", "red apple"]
    tokens, labels = vae.tokens(names), torch.tensor([1, 0, 1])
    z = F.normalize(torch.randn(3, clip.embed_dim, generator=seeded(2)), dim=-1)
    noise = torch.randn(3, clip.embed_dim, generator=seeded(3))
    total = 0.0
    for x, e, label in zip(z, noise, labels.tolist(), strict=True):
        hidden = (vae.hidden.weight @ x + vae.hidden.bias).clamp_min(0)
        mean = vae.mean.weight @ hidden + vae.mean.bias
        log_variance = vae.log_variance.weight @ hidden + vae.log_variance.bias
        latent = mean + log_variance.mul(0.5).exp() * e
        inner = (vae.down.weight @ latent + vae.down.bias).clamp_min(0)
        context = vae.context + (vae.up.weight @ inner + vae.up.bias)
        made = F.normalize(encode_prompts(clip.text, tokens, context, path="plain")[label], dim=-1)
        kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
        total += float(((made - x).square().sum() + kl).detach())
    assert vae.loss(z, tokens, labels, noise).item() == pytest.approx(total / 3, rel=1e-4)


def test_sizes_and_start(clip) -> None:
    vae, width = PromptVAE(clip, seeded()), clip.embed_dim
    assert vae.hidden.weight.shape == (4 * width, width) and vae.down.weight.shape == (8 * width, width)
    assert vae.up.weight.shape == (clip.text.width, 8 * width) and vae.context.shape == (4, clip.text.width)
    assert vae.hidden.weight.std().item() == pytest.approx(0.02, rel=0.05) and vae.up.bias.abs().sum() == 0
    assert not any(p is q for p in vae.parameters() for q in clip.parameters())


def test_training_brings_synthesized_rows_to_the_images(clip) -> None:
    """The images lie around the names in another sentence, which a context can say."""
    centres = clip.encode_text([f"the {n} symbol on a dark wall" for n in NAMES])
    noise = torch.randn(4, 6, 2, clip.embed_dim, generator=seeded(5))
    features = F.normalize(centres[:, None, None] + 0.02 * noise, dim=-1).flatten(0, 1)
    labels, state = torch.arange(4).repeat_interleave(6), torch.get_rng_state()
    first, again, trained = (fit_vae(clip, features, labels, NAMES, n, 1) for n in (1, 1, 40))
    assert torch.equal(torch.get_rng_state(), state)
    before, rows = (synthesize(vae, NAMES, 8, seeded()) for vae in (first, trained))
    assert rows.shape == (4, 8, clip.embed_dim) and torch.equal(before, synthesize(again, NAMES, 8, seeded()))
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(4, 8))

    def distance(made: torch.Tensor) -> float:
        return (made - centres[:, None]).square().sum(-1).mean().item()

    assert distance(rows) < 0.5 * distance(before)
    assert not any(p.requires_grad for p in trained.parameters())
    assert synthesize(trained, ["fox"], 3, seeded()).shape == (1, 3, clip.embed_dim)
    assert all(p.grad is None for p in clip.parameters())


@pytest.mark.parametrize("new_names", [(), ("fox", "bus")])
def test_the_terms_by_hand(clip, toy_bank, new_names) -> None:
    host = SHIP(clip, NAMES, "an icon of a", new_names=new_names, vae_epochs=1, rows=5, per_name=3)
    host.prepare(toy_bank, 1, 1)
    names, synthesized = [*NAMES, *new_names], list(new_names) or NAMES
    assert host.pool.shape == (len(synthesized), 3, clip.embed_dim)
    coop = CoOp(clip, NAMES, "an icon of a")
    w = coop.class_weights(names)
    z, labels = toy_bank.features[:, 0], toy_bank.labels
    drawn = torch.randint(3 * len(synthesized), (5,), generator=seeded(4)).tolist()
    rows = torch.stack([host.pool[i // 3, i % 3] for i in drawn])
    owners = torch.tensor([names.index(synthesized[i // 3]) for i in drawn])
    terms = host.losses(Batch(labels, features=z, generator=seeded(4)))
    assert set(terms) == {"ce", "synthesized_ce"}
    for name, x, y in (("ce", z, labels), ("synthesized_ce", rows, owners)):
        chances = (clip.logit_scale * x @ w.T).softmax(1)[torch.arange(len(y)), y]
        expected = -sum(math.log(c) for c in chances.tolist()) / len(y) / 2
        assert terms[name].item() == pytest.approx(expected, rel=1e-4)
    given = host.losses(Batch(labels, features=z, generator=seeded(4)), z=z, w=host.class_weights())
    torch.testing.assert_close(given, terms, atol=1e-4, rtol=1e-4)
    every = host.losses(Batch(labels, features=z))  # without a generator nothing is drawn
    assert every["synthesized_ce"].isfinite()


def test_a_saved_run_holds_the_context_alone(clip, toy_bank, tmp_path) -> None:
    host = SHIP(clip, NAMES, "an icon of a", new_names=["fox"], vae_epochs=1, per_name=2)
    with pytest.raises(RuntimeError, match=r"no features yet; train with ogenlib\.fit"):
        host.losses(Batch(toy_bank.labels, features=toy_bank.features[:, 0]))
    host.prepare(toy_bank, 1, 1)
    assert set(host.state_dict()) == set(host.trainable()) == {"context"}
    host.save(tmp_path)
    again = load_run(tmp_path, clip=clip)
    assert isinstance(again, SHIP) and again.config() == host.config() and again.config()["new_names"] == ["fox"]
    assert torch.equal(again.class_weights(["bus"]), host.class_weights(["bus"]))


def test_presets_and_options(clip) -> None:
    host = SHIP.paper(clip, NAMES)
    assert (host.n_context, host.vae_epochs, host.new_names) == (4, 50, ())
    assert SHIP.unknown_options(["fox"]) == {"new_names": ["fox"]}
    assert SHIP.dataset_options(["an icon of a {}."]) == {"context": "an icon of a"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"new_names": "fox"}, "new_names='fox': pass a list"),
        ({"new_names": ["dog"]}, r"hold \['dog'\] more than once"),
        ({"new_names": ["fox " * 60]}, "fox fox"),
        ({"vae_epochs": 0}, "vae_epochs=0: must be 1 or more"),
        ({"rows": 0}, "rows=0"),
        ({"per_name": 0}, "per_name=0"),
    ],
)
def test_bad_options_are_refused(clip, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SHIP(clip, NAMES, **options)
