"""What holds for every method in `list_methods()`."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ogenlib.hosts import METHODS, Batch, Host, build, list_methods
from ogenlib.ogen.wrapper import OGEN
from ogenlib.runs.saved import load_run

NAMES = ["dog", "red apple", "train", "hammer"]
EVERY = [info.name for info in list_methods()]
OPTIONS = {"ship": {"vae_epochs": 1, "per_name": 2}, "lp_ft": {"probe_epochs": 1}}  # prepared in a moment


def toy_batch(host: Host, toy_bank) -> Batch:
    """Cached features, or noise pictures for the hosts that change the image tower."""
    if host.uses_cached_features:
        return Batch(toy_bank.labels, features=toy_bank.features[:, 0])
    draws = torch.Generator().manual_seed(0)
    return Batch(torch.arange(4), pixels=torch.randn(4, 3, *host.clip.image.image_size, generator=draws))


@pytest.fixture(params=EVERY)
def host(request: pytest.FixtureRequest, clip, toy_bank) -> Host:
    made = build(request.param, clip, NAMES, **OPTIONS.get(request.param, {}))
    made.prepare(toy_bank, 2, 1)  # what `fit` calls before the first epoch
    return made


def test_class_weights_are_unit_rows_for_any_names(host: Host) -> None:
    z = F.normalize(torch.randn(3, host.clip.embed_dim, generator=torch.Generator().manual_seed(0)), dim=-1)
    for names in (None, ["a name nobody trained on", "cat"]):
        w = host.class_weights(names, z=z)
        assert w.shape[-2:] == (4 if names is None else 2, host.clip.embed_dim)
        torch.testing.assert_close(w.norm(dim=-1), torch.ones(w.shape[:-1]), atol=1e-5, rtol=0)


def test_training_reaches_every_trainable_parameter_and_nothing_else(host: Host, toy_bank) -> None:
    trainable = host.trainable()
    if not trainable:
        with pytest.raises(ValueError, match="nothing to train"):
            host.losses(Batch(toy_bank.labels, features=toy_bank.features[:, 0]))
        return
    with torch.no_grad():  # off the start: a matrix that starts at zero hides the one before it
        for p in trainable.values():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    terms = host.losses(toy_batch(host, toy_bank))
    assert all(t.ndim == 0 for t in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable.values())
    assert all(p.grad is None for p in host.clip.parameters())
    assert all(p.dtype == torch.float32 for p in trainable.values())


def test_the_backbone_is_not_in_the_state_dict(host: Host) -> None:
    merged = host.merged() or {}  # tensors of the model that the host trains copies of
    kept = sum(v.numel() for v in host.state_dict().values()) - sum(v.numel() for v in merged.values())
    assert kept < 0.2 * sum(p.numel() for p in host.clip.parameters())


def test_save_and_load_give_the_same_weights(host: Host, clip, tmp_path) -> None:
    with torch.no_grad():
        for p in host.trainable().values():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    host.save(tmp_path / "run")
    again = load_run(tmp_path / "run", clip=clip)
    assert type(again) is type(host) and again.names == host.names and not again.training
    host.eval()  # as the loaded one is: some round otherwise in training steps
    torch.testing.assert_close(again.class_weights(["fox", "bus"]), host.class_weights(["fox", "bus"]), atol=0, rtol=0)


def test_images_and_cached_features_agree(host: Host) -> None:
    pixels = torch.randn(2, 3, *host.clip.image.image_size, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, dtype=torch.long)
    z = host.image_features(Batch(labels, pixels=pixels))
    with pytest.raises(ValueError, match="neither features nor pixels"):
        host.image_features(Batch(labels))
    frozen = Batch(labels, features=host.clip.encode_image(pixels))
    if not host.uses_cached_features:
        torch.testing.assert_close(z.norm(dim=-1), torch.ones(2), atol=1e-5, rtol=0)
        with pytest.raises(ValueError, match="PixelBank"):
            host.image_features(frozen)
        return
    cached = host.image_features(frozen)
    torch.testing.assert_close(z, cached, atol=1e-6, rtol=0)


def test_logits_are_scaled_cosines(host: Host) -> None:
    if type(host).logits is not Host.logits:
        pytest.skip(f"{host.info.name} has logits of its own; its own tests say which")
    z, w = F.normalize(torch.eye(2, host.clip.embed_dim), dim=-1), torch.eye(3, host.clip.embed_dim)
    expected = host.clip.logit_scale * torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    torch.testing.assert_close(host.logits(z, w), expected)
    torch.testing.assert_close(host.logits(z, w.expand(2, -1, -1)), expected)


@pytest.mark.parametrize("name", EVERY)
def test_bad_names_are_refused(name: str, clip) -> None:
    with pytest.raises(ValueError, match="non-empty list"):
        build(name, clip, [])
    with pytest.raises(ValueError, match="non-empty list"):
        build(name, clip, "cat")
    with pytest.raises(ValueError, match=r"\['cat'\] more than once"):
        build(name, clip, ["cat", "dog", "cat"])


def test_every_method_says_where_it_comes_from() -> None:
    assert len(METHODS) >= 2
    for info in list_methods():
        assert info.url.startswith("https://arxiv.org/abs/") and info.year > 2000 and info.paper
        assert info.kind in ("baseline", "prompt", "adapter", "fine-tuning")
        assert info.url in (
            METHODS[info.name].__module__ and __import__(METHODS[info.name].__module__, fromlist=["_"]).__doc__
        )


def test_losses_start_at_the_zero_shot_cross_entropy(clip, toy_bank) -> None:
    coop = build("coop", clip, NAMES, context="an icon of a")
    z, labels = toy_bank.features[:, 0], toy_bank.labels
    w = clip.encode_text([f"an icon of a {n}." for n in NAMES])
    p = (clip.logit_scale * z @ w.T).softmax(1)
    by_hand = -sum(math.log(p[i, y]) for i, y in enumerate(labels.tolist())) / len(labels)
    assert coop.losses(Batch(labels, features=z))["ce"].item() == pytest.approx(by_hand, rel=1e-4)


def test_what_a_host_says_of_itself_holds_with_ogen_around_it(host: Host) -> None:
    if not host.trainable():
        return
    model = OGEN(host, k=2, generator=None)
    assert model.inner is host is host.inner and model.ogen_kind() == host.ogen_kind()
    for capability in ("uses_cached_features", "reads_frozen", "own_image_side", "own_logits"):
        assert getattr(model, capability) == getattr(host, capability)
    merged, own = model.merged(), host.merged()
    assert (merged is None) == (own is None) and (own is None or (merged is not None and merged.keys() == own.keys()))
    # An image side of one's own is one that no tower gives; the plain model gives the others'.
    assert host.own_image_side == (own is None and not host.uses_cached_features)
    again = model.around(host)
    assert isinstance(again, OGEN) and again.config() == model.config() and host.around(host) is host
