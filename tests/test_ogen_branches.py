"""The released code's branches: every term and gradient against formulas written out image by image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ogen_world import KNOWN, OFF, UNKNOWN, D, PerImage, adapter, batch, make_bank, make_table, noise, seeded, shaken
from torch import Tensor, nn

from ogenlib import OGEN
from ogenlib.hosts import Host
from ogenlib.ogen.branches import image_neighbours
from ogenlib.ogen.config import OGENConfig, ogen_config
from ogenlib.train.batches import training_data

K = 2
WEIGHTS = (0.25, 0.25 / 3, 0.5 / 3)


def prepared(host: Host | None = None, epoch: int = 3, **settings: Any) -> OGEN:
    """The preset in the given epoch of ten, two of which are warm-up; host and generator away from their start."""
    host = shaken(adapter(make_table())) if host is None else host
    names = {} if "vocabulary" in settings else {"unknown": UNKNOWN}
    chosen = {**names, "preset": "released-code", "k": K, "heads": 2, "dropout": 0.0, **settings}
    model = OGEN(host, **chosen)
    features = training_data(model, make_bank(model.clip)).features
    assert features is not None
    model.prepare(features, 10, seed=3)
    assert model.rows is not None
    with torch.no_grad():
        for p in model.rows.generator.parameters():
            p.add_(0.5 * noise(*p.shape, seed=1))
    model._epoch = epoch
    return model


def attend(generator: Any, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """unit(MLP(q) + MHA(q, K, V)) `(D,)` by torch's own layer, of `(D,)`, `(J, D)` and `(J, D)`."""
    own = generator.attention
    layer = nn.MultiheadAttention(D, own.heads, batch_first=True)
    into = [own.to_query, own.to_key, own.to_value]
    state = {
        "in_proj_weight": torch.cat([p.weight for p in into]),
        "in_proj_bias": torch.cat([p.bias for p in into]),
        "out_proj.weight": own.out.weight,
        "out_proj.bias": own.out.bias,
    }
    mixed, _ = torch.func.functional_call(layer, state, (query[None, None], keys[None], values[None]))
    first, _, last = generator.mlp
    hidden = F.relu(F.linear(query, first.weight, first.bias))
    return F.normalize(F.linear(hidden, last.weight, last.bias) + mixed[0, 0], dim=0)


def written_out(model: OGEN, z: Tensor, labels: Tensor, shares: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The loss of the released code, image by image; `shares` and `targets` `(D,)` are its two uniform draws."""
    assert model.rows is not None
    generator, scale = model.rows.generator, model.clip.logit_scale
    known = generator.require_known()
    weights = model.host.class_weights((*KNOWN, *UNKNOWN), z=z)
    similar = known.means @ known.means.T - 1e9 * torch.eye(len(KNOWN))
    to_image: list[Tensor] = []
    to_near, own, near, new, real = ([] for _ in range(5))

    def gap(feature: Tensor, side: Tensor, label: int) -> Tensor:
        return -(scale * (side @ feature)).log_softmax(0)[label]

    for image, y in zip(z, labels.tolist(), strict=True):
        base, others = weights[: len(KNOWN)], weights[len(KNOWN) :]
        neighbours = similar[y].topk(K).indices
        drawn, wanted = (known.means[neighbours] + s * known.stds[neighbours] for s in (shares, targets))
        made = attend(generator, base[y].detach(), base[neighbours].detach(), drawn)
        to_image.append((made - image).square().sum())
        own.append(gap(made, base, y))
        real.append(gap(image, base, y))
        for n, target in zip(neighbours.tolist(), wanted, strict=True):
            made = attend(generator, base[n].detach(), base[y][None].detach(), image[None])
            to_near.append((made - target).square().sum())
            near.append(gap(made, base, n))
        for n in (others @ base[y]).topk(K).indices.tolist():
            made = attend(generator, others[n], base[y][None].detach(), image[None])
            new.append(gap(made, others, n))
    mean = {"own": own, "near": near, "new": new, "real": real, "image": to_image, "back": to_near}
    means = {name: torch.stack(values).mean() for name, values in mean.items()}
    return {
        "generator": means["image"] + means["back"],
        "synthesized_own": 0.25 * means["own"],
        "synthesized_near": 0.25 / 3 * means["near"],
        "synthesized_new": 0.5 / 3 * means["new"],
        "ce": 0.25 * means["real"],
    }


def drawn(seed: int) -> Tensor:
    """`(2, D)`: the uniform numbers of a step whose batch has this seed."""
    source = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=seeded(seed))))
    return torch.rand(2, D, generator=source)


def gradients(model: OGEN, loss: Tensor) -> dict[str, Tensor | None]:
    parameters = model.trainable()
    slopes = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, retain_graph=True)
    return dict(zip(parameters, slopes, strict=True))


def test_terms_and_gradients_are_those_of_the_released_code() -> None:
    model, images = prepared(), batch()
    got = model.losses(images)
    assert images.features is not None
    expected = written_out(model, images.features, images.labels, *drawn(11))
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=1e-6, rtol=1e-5)
    slopes = gradients(model, torch.stack(list(got.values())).sum())
    for name, slope in gradients(model, torch.stack(list(expected.values())).sum()).items():
        assert slope is not None and slopes[name] is not None and slope.norm() > 0
        torch.testing.assert_close(slopes[name], slope, atol=1e-5, rtol=1e-4)


def test_every_cross_entropy_teaches_host_and_generator() -> None:
    """In the released code nothing is detached between a synthesized feature and the generator."""
    model = prepared()
    for name, value in model.losses(batch()).items():
        if name.startswith("synthesized"):
            slopes = gradients(model, value)
            assert all(s is not None and s.norm() > 0 for n, s in slopes.items() if not n.startswith("generator."))
            assert slopes["generator.attention.out.weight"].norm() > 0  # type: ignore[union-attr]


def test_in_the_warm_up_only_the_generator_learns_and_targets_are_what_was_drawn() -> None:
    model, images = prepared(epoch=2), batch()
    got = model.losses(images)
    assert list(got) == ["generator"] and images.features is not None
    shares = drawn(11)[0]
    expected = written_out(model, images.features, images.labels, shares, shares)["generator"]
    torch.testing.assert_close(got["generator"], expected, atol=1e-6, rtol=1e-5)
    slopes = gradients(model, got["generator"])
    assert {n.startswith("generator.") for n, s in slopes.items() if s is not None} == {True}


def test_weights_scale_their_branch_and_none_leaves_it_out() -> None:
    usual, model = prepared().losses(batch()), prepared(branches=(0.0, 1.0, 0.0))
    changed = model.losses(batch())
    assert set(usual) - set(changed) == {"synthesized_own", "synthesized_new"}
    torch.testing.assert_close(changed["synthesized_near"], usual["synthesized_near"] / WEIGHTS[1])
    assert torch.equal(changed["generator"], usual["generator"])


def test_without_new_names_their_branch_is_left_out_and_fewer_than_k_are_all_taken() -> None:
    assert "synthesized_new" not in prepared(unknown=None).losses(batch())
    assert torch.isfinite(prepared(unknown=UNKNOWN[:1]).losses(batch())["synthesized_new"])


def test_weights_that_depend_on_the_image_are_those_of_the_image() -> None:
    """A batch gives the mean of what its images give one at a time."""
    model, images = prepared(PerImage(make_table(), KNOWN)), batch(6)
    assert images.features is not None
    whole = model.losses(images)
    single = []
    for i in range(6):
        one = batch(6)
        one.labels, one.features = one.labels[i : i + 1], images.features[i : i + 1]
        single.append(model.losses(one))
    for name, value in whole.items():
        torch.testing.assert_close(value, torch.stack([s[name] for s in single]).mean(), atol=1e-5, rtol=1e-4)


def test_long_mean_images_are_near_to_all() -> None:
    means = torch.tensor([[1.0, 0.0], [0.1, 0.0], [0.6, 0.6]])
    assert image_neighbours(means, 1)[:, 0].tolist() == [2, 0, 0]  # the cosine of 0 and 1 is larger


def test_other_presets_settings_and_saved_cards_know_nothing_of_branches() -> None:
    assert "branches" not in OGENConfig().as_dict() and "branches" not in ogen_config("paper").as_dict()
    assert ogen_config("released-code").as_dict()["branches"] == WEIGHTS
    card = OGEN(adapter(make_table()), unknown=UNKNOWN, preset="released-code", k=K).card()
    earlier = {**card, "settings": {k: v for k, v in card["settings"].items() if k != "branches"}}
    assert OGEN.from_card(adapter(make_table()), card).config_.branches == WEIGHTS
    assert OGEN.from_card(adapter(make_table()), earlier).config_.branches is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"branches": (1.0, 1.0)}, r"^branches=\(1.0, 1.0\): three weights, each 0 or more"),
        ({"branches": (1.0, -1.0, 0.0)}, "three weights, each 0 or more"),
        ({"branches": WEIGHTS}, "^branches needs joint=True and a generator"),
        ({"branches": WEIGHTS, "joint": True, "generator": None}, "^branches needs joint=True and a generator"),
    ],
)
def test_branches_without_what_they_need_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OGENConfig(**{**OFF, "generator": "released", **settings})
