"""Putting a teacher's tensors in place of the student's, for good or for a while."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ogenlib.distill import MeanTeacher
from ogenlib.distill.named import swap


def setup() -> tuple[nn.Linear, dict[str, Tensor], MeanTeacher]:
    """A student at 3, its teacher at 0.5 * 1 + 0.5 * 2 = 1.5."""
    layer = nn.Linear(2, 1)
    tensors: dict[str, Tensor] = dict(layer.named_parameters())
    teacher = MeanTeacher(tensors, decay=0.5)
    for t, value in ((1, 1.0), (2, 2.0)):
        fill(layer, value)
        teacher.update(t)
    fill(layer, 3.0)
    return layer, tensors, teacher


def fill(layer: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(value)


ONES = torch.ones(1, 2)


def test_swapped_computes_with_the_teacher_and_restores() -> None:
    layer, tensors, teacher = setup()
    with teacher.swapped(tensors):
        out = layer(ONES)
        assert out.item() == pytest.approx(4.5) and not out.requires_grad
    assert layer(ONES).item() == pytest.approx(9.0)
    with teacher.swapped():  # its own student by default
        assert layer(ONES).item() == pytest.approx(4.5)


def test_restored_bit_for_bit_in_the_same_memory() -> None:
    layer, tensors, teacher = setup()
    with torch.no_grad():
        layer.weight[0, 0], layer.weight[0, 1] = float("nan"), -0.0
    bits = layer.weight.detach().view(torch.int32).clone()
    parameter, pointer = layer.weight, layer.weight.data_ptr()
    with teacher.swapped(tensors):
        fill(layer, 7.0)  # lost on exit
    assert layer.weight is parameter and layer.weight.data_ptr() == pointer
    assert torch.equal(layer.weight.detach().view(torch.int32), bits)
    assert teacher.state()["weight"][0, 0].item() == 1.5


def test_restored_when_the_body_raises() -> None:
    layer, tensors, teacher = setup()
    with pytest.raises(KeyError, match="inside"), teacher.swapped(tensors):
        raise KeyError("inside")
    assert layer(ONES).item() == pytest.approx(9.0)
    assert torch.is_grad_enabled()


def test_nested_blocks_unwind() -> None:
    layer, tensors, teacher = setup()
    other = MeanTeacher(tensors)
    other.update(1)  # the student's 3
    with teacher.swapped(), other.swapped():
        assert layer(ONES).item() == pytest.approx(9.0)
    assert layer(ONES).item() == pytest.approx(9.0)
    with other.swapped(), teacher.swapped():
        assert layer(ONES).item() == pytest.approx(4.5)
    assert layer(ONES).item() == pytest.approx(9.0)


def test_a_graph_from_before_the_block_can_be_differentiated_after_it() -> None:
    layer, tensors, teacher = setup()
    x = ONES.clone().requires_grad_()
    loss = (layer(x) ** 2).sum()  # its gradient needs the student's weight
    with teacher.swapped(tensors):
        target = layer(ONES)
    (loss + (layer(x) - target).sum()).backward()
    # d/dw (9^2 + 9 - 4.5) = 2 * 9 * x + x, d/dx = (2 * 9 + 1) * w
    assert layer.weight.grad is not None and x.grad is not None
    assert torch.equal(layer.weight.grad, torch.full((1, 2), 19.0))
    assert torch.equal(x.grad, torch.full((1, 2), 57.0))


def test_an_optimizer_goes_on_after_the_block() -> None:
    layer, tensors, teacher = setup()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    twin = nn.Linear(2, 1)
    twin.load_state_dict(layer.state_dict())
    twin_optimizer = torch.optim.AdamW(twin.parameters(), lr=0.1)
    for _ in range(3):
        with teacher.swapped(tensors):
            layer(ONES)
        for model, steps in ((layer, optimizer), (twin, twin_optimizer)):
            steps.zero_grad()
            model(ONES).square().sum().backward()
            steps.step()
    assert torch.equal(layer.weight, twin.weight) and torch.equal(layer.bias, twin.bias)


def test_another_model_in_another_precision() -> None:
    _, _, teacher = setup()
    twin = nn.Linear(2, 1).to(torch.bfloat16)
    before = twin.weight.detach().clone()
    named = dict(twin.named_parameters())
    with teacher.swapped(named):
        assert twin.weight.dtype == torch.bfloat16 and twin.weight[0, 0].item() == 1.5
    assert torch.equal(twin.weight, before)
    teacher.copy_to(named)
    assert twin.weight.dtype == torch.bfloat16 and twin.weight.requires_grad
    assert twin.weight.tolist() == [[1.5, 1.5]]


def test_copy_to_writes_the_student_for_good() -> None:
    layer, _, teacher = setup()
    pointer = layer.weight.data_ptr()
    teacher.copy_to()
    assert layer.weight.data_ptr() == pointer and layer.weight.is_leaf
    assert layer(ONES).item() == pytest.approx(4.5)


@pytest.mark.parametrize("verb", ["swapped", "copy_to"])
def test_other_names_and_shapes_are_refused(verb: str) -> None:
    layer, tensors, teacher = setup()
    wrong: dict[str, dict[str, Tensor]] = {
        r"lacks \['more'\]": {**tensors, "more": torch.zeros(1)},
        r"has \['bias'\] besides": {"weight": tensors["weight"]},
        r"'weight' as \(1, 2\), expected \(3,\)": {**tensors, "weight": torch.zeros(3)},
    }
    for message, named in wrong.items():
        with pytest.raises(ValueError, match=message):
            if verb == "copy_to":
                teacher.copy_to(named)
            else:
                with teacher.swapped(named):
                    pytest.fail("the block ran")
    assert layer(ONES).item() == pytest.approx(9.0)


def test_views_are_refused() -> None:
    whole = torch.zeros(2, 2)
    _, tensors, teacher = setup()
    with pytest.raises(ValueError, match=r"\['weight'\] are views"), teacher.swapped({**tensors, "weight": whole[:1]}):
        pytest.fail("the block ran")


def test_the_casts_that_autocast_keeps_are_not_taken_for_the_teachers() -> None:
    layer, x = nn.Linear(4, 3), torch.ones(2, 4)
    tensors = dict(layer.named_parameters())
    nothing = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = layer(x)  # its cast weights are kept to the end of the block
        with swap(tensors, nothing):
            assert not layer(x).any()
        assert torch.equal(layer(x), before) and torch.is_autocast_cache_enabled()
