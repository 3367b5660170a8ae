"""The forward pass of every variant against a plain reference, written with loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ogenlib.generators import (
    ClassConditionalGenerator,
    JointGenerator,
    JointShiftGenerator,
    PerClassGenerator,
    ReleasedGenerator,
    ShiftGenerator,
    TextOnlyGenerator,
    list_variants,
)
from ogenlib.generators.attention import CrossAttention
from ogenlib.generators.base import variant_class

KINDS = [variant_class(name) for name in list_variants() if name != "mapped"]  # which needs known classes


def shaken(kind: type[ClassConditionalGenerator], dim: int, **settings) -> ClassConditionalGenerator:
    """Every parameter random, so that zero starts and zero biases hide nothing."""
    generator = torch.Generator().manual_seed(5)
    model = kind(dim, **settings).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def inputs(b: int, k: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(b + 10 * k + 100 * d)
    return tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in ((b, d), (b, k, d), (b, k, d)))


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return layer.weight @ x + layer.bias


def mhca(layer: CrossAttention, q: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """One query, one head at a time."""
    query = linear(layer.to_query, q)
    width = len(query) // layer.heads
    parts = []
    for head in range(layer.heads):
        own = slice(head * width, (head + 1) * width)
        scores = [float(query[own] @ linear(layer.to_key, key)[own]) / math.sqrt(width) for key in keys]
        total = sum(math.exp(s) for s in scores)
        weights = [math.exp(s) / total for s in scores]
        parts.append(sum(w * linear(layer.to_value, v)[own] for w, v in zip(weights, values, strict=True)))
    return linear(layer.out, torch.cat(parts))


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    deviation = x - x.mean()
    return norm.weight * deviation / torch.sqrt(deviation.square().mean() + norm.eps) + norm.bias


def mlp(layers: nn.Sequential, x: Tensor) -> Tensor:
    return linear(layers[2], linear(layers[0], x).clamp(min=0))


def reference(model: ClassConditionalGenerator, q: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    count = len(keys)
    match model:
        case JointShiftGenerator():
            shifted = sum(v + model.gain * (q - k) for k, v in zip(keys, values, strict=True)) / count
            return layer_norm(model.norm, shifted + mhca(model.attention, q, keys, values))
        case JointGenerator():
            return layer_norm(model.norm, sum(values) / count + mhca(model.attention, q, keys, values))
        case PerClassGenerator():
            pairs = zip(keys, values, strict=True)
            return sum(layer_norm(model.norm, v + mhca(model.attention, q, [k], [v])) for k, v in pairs) / count
        case TextOnlyGenerator():
            return layer_norm(model.norm, q + mlp(model.mlp, q))
        case ReleasedGenerator():
            raw = mlp(model.mlp, q) + mhca(model.attention, q, keys, values)
            return raw / raw.norm()
        case ShiftGenerator():
            return sum(v + q - k for k, v in zip(keys, values, strict=True)) / count
    raise AssertionError(model)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.variant)
@pytest.mark.parametrize("dim, heads, hidden", [(8, 2, None), (7, 3, 5), (5, 8, 2)])
@torch.no_grad()
def test_forward_is_the_reference(kind, dim: int, heads: int, hidden: int | None) -> None:
    model = shaken(kind, dim, heads=heads, hidden=hidden)
    query, keys, values = inputs(4, 3, dim)
    expected = torch.stack([reference(model, q, list(k), list(v)) for q, k, v in zip(query, keys, values, strict=True)])
    assert torch.allclose(model(query, keys, values), expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_attention_is_torch_multihead_attention_where_heads_divide_the_width() -> None:
    ours = CrossAttention(12, 3, zero_start=False).double().eval()
    torchs = nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64).eval()
    torchs.in_proj_weight.copy_(torch.cat([ours.to_query.weight, ours.to_key.weight, ours.to_value.weight]))
    torchs.in_proj_bias.copy_(torch.cat([ours.to_query.bias, ours.to_key.bias, ours.to_value.bias]))
    torchs.out_proj.load_state_dict(ours.out.state_dict())
    query, keys, values = inputs(5, 4, 12)
    assert torch.allclose(ours(query, keys, values), torchs(query[:, None], keys, values)[0][:, 0], atol=1e-12)


def test_parameter_counts_of_the_released_code() -> None:
    model = ReleasedGenerator(512)
    assert sum(p.numel() for p in model.attention.parameters()) == 1_050_624
    assert sum(p.numel() for p in model.mlp.parameters()) == 525_312
    assert list(ShiftGenerator(512).parameters()) == []


@given(
    st.sampled_from(KINDS), st.integers(1, 4), st.integers(1, 5), st.integers(2, 12), st.integers(1, 5),
    st.integers(1, 9),
)  # fmt: skip
def test_any_shape_goes_through(kind, b: int, k: int, d: int, heads: int, hidden: int) -> None:
    model = kind(d, k=k, heads=heads, hidden=hidden).double()
    out = model(*inputs(b, k, d))
    assert out.shape == (b, d)
    assert torch.isfinite(out).all()


@torch.no_grad()
def test_joint_starts_as_the_normalised_mean_of_the_values() -> None:
    query, keys, values = inputs(4, 3, 8)
    mean = values.mean(dim=1)
    centred = mean - mean.mean(dim=-1, keepdim=True)
    expected = centred / centred.norm(dim=-1, keepdim=True)
    assert torch.allclose(JointGenerator(8).double().eval()(query, keys, values), expected, atol=1e-6)


@torch.no_grad()
def test_what_each_variant_depends_on() -> None:
    query, keys, values = inputs(4, 3, 8)
    changed = {}
    for kind in KINDS:
        model = shaken(kind, 8)
        out = model(query, keys, values)
        changed[kind.variant] = tuple(
            not torch.allclose(out, other)
            for other in (
                model(query + 1, keys, values),
                model(query, keys + keys.roll(1, 1).square(), values),
                model(query, keys, values + 1 + values.square()),
            )
        )
    assert changed == {
        "joint": (True, True, True),
        "joint-shift": (True, True, True),
        "released": (True, True, True),
        "shift": (True, True, True),
        "text-only": (True, False, False),
        "per-class": (False, False, True),
    }


@torch.no_grad()
def test_the_order_of_neighbours_does_not_matter() -> None:
    query, keys, values = inputs(4, 3, 8)
    for kind in KINDS:
        model = shaken(kind, 8)
        assert torch.allclose(model(query, keys, values), model(query, keys.flip(1), values.flip(1)), atol=1e-10)


def test_the_base_class_has_no_forward() -> None:
    with pytest.raises(NotImplementedError, match="must write forward"):
        ClassConditionalGenerator(8)(*inputs(1, 1, 8))


@pytest.mark.parametrize(
    "settings, message",
    [({"dim": 1}, "dim=1"), ({"k": 0}, "k=0"), ({"heads": 0}, "heads=0"), ({"hidden": -1}, "hidden=-1"),
     ({"dropout": 1.0}, "dropout=1.0"), ({"spread": "wide"}, "must be one of residual, none")],
)  # fmt: skip
def test_settings_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JointGenerator(**{"dim": 8, **settings})
