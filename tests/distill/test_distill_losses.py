"""Distillation losses against cases computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ogenlib.distill import feature_cosine, kl_divergence, logit_l2

LOSSES: dict[str, Callable[..., Tensor]] = {"kl": kl_divergence, "l2": logit_l2, "cosine": feature_cosine}


def rows(seed: int, *shape: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kl_by_hand() -> None:
    student = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    teacher = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    # first row: teacher (3/4, 1/4) against (1/2, 1/2); second row: 0
    first = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_divergence(student, teacher).item() == pytest.approx(first / 2, rel=1e-5)
    # the other direction is another number
    back = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert kl_divergence(teacher, student).item() == pytest.approx(back / 2, rel=1e-5)


def test_kl_with_temperature_by_hand() -> None:
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3.0), 0.0]])
    # softened by T = 2 the teacher is (3/4, 1/4) again; T^2 = 4
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kl_divergence(student, teacher, temperature=2.0).item() == pytest.approx(expected, rel=1e-5)


def test_kl_gradient_is_the_difference_of_predictions() -> None:
    student, teacher = rows(0, 5, 4).requires_grad_(), rows(1, 5, 4)
    for temperature in (0.5, 1.0, 4.0):
        (gradient,) = torch.autograd.grad(kl_divergence(student, teacher, temperature), student)
        p, q = (x.detach().div(temperature).softmax(-1) for x in (teacher, student))
        torch.testing.assert_close(gradient, temperature * (q - p) / 5)


def test_l2_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 3.0]])
    assert logit_l2(student, teacher).item() == pytest.approx((1 + 4 + 0 + 9) / 4)
    # differences (1, 2) and (0, -3), less their row means 1.5 and -1.5: all four are 0.5 or 1.5 away
    assert logit_l2(student, teacher, centred=True).item() == pytest.approx((0.25 + 0.25 + 2.25 + 2.25) / 4)


def test_cosine_by_hand() -> None:
    student = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0], [0.0, -5.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.0, 7.0], [9.0, 0.0], [0.0, 1.0]])
    # cosines 3/5, 0, 1, -1
    assert feature_cosine(student, teacher).item() == pytest.approx((0.4 + 1 + 0 + 2) / 4)


def test_a_zero_row_costs_one_and_has_a_finite_gradient() -> None:
    student = torch.zeros(1, 3, requires_grad=True)
    loss = feature_cosine(student, torch.ones(1, 3))
    loss.backward()
    assert loss.item() == 1 and student.grad is not None and bool(student.grad.isfinite().all())


@pytest.mark.parametrize("name", LOSSES)
def test_equal_predictions_cost_nothing(name: str) -> None:
    x = rows(2, 6, 5)
    assert LOSSES[name](x, x).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_reaches_the_student_only(name: str) -> None:
    student, teacher = rows(3, 4, 5).requires_grad_(), rows(4, 4, 5).requires_grad_()
    LOSSES[name](student, teacher).backward()
    assert student.grad is not None and bool(student.grad.abs().sum() > 0) and teacher.grad is None
    LOSSES[name](student, teacher, detach_teacher=False).backward()
    assert teacher.grad is not None and bool(teacher.grad.abs().sum() > 0)


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 7), st.floats(-20, 20), st.floats(0.3, 8))
def test_a_constant_on_a_row_changes_nothing(seed: int, b: int, c: int, constant: float, temperature: float) -> None:
    student, teacher = rows(seed, b, c).double(), rows(seed + 1, b, c).double()
    shift = constant * torch.arange(1, b + 1, dtype=torch.float64)[:, None]
    for loss in (lambda s, t: kl_divergence(s, t, temperature), lambda s, t: logit_l2(s, t, centred=True)):
        expected = loss(student, teacher)
        assert expected.item() >= -1e-12
        torch.testing.assert_close(loss(student + shift, teacher), expected, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(loss(student, teacher - shift), expected, rtol=1e-7, atol=1e-9)


@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(0.01, 100))
def test_lengths_of_features_change_nothing(seed: int, a: float, b: float) -> None:
    student, teacher = rows(seed, 3, 8).double(), rows(seed + 1, 3, 8).double()
    expected = feature_cosine(student, teacher)
    assert 0 <= expected.item() <= 2
    torch.testing.assert_close(feature_cosine(a * student, b * teacher), expected)


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 1000))
def test_order_of_rows_and_leading_dimensions_do_not_matter(name: str, seed: int) -> None:
    student, teacher = rows(seed, 6, 4).double(), rows(seed + 1, 6, 4).double()
    expected = LOSSES[name](student, teacher)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(LOSSES[name](student[order], teacher[order]), expected)
    torch.testing.assert_close(LOSSES[name](student.view(2, 3, 4), teacher.view(2, 3, 4)), expected)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_fp32(name: str, dtype: torch.dtype) -> None:
    # 100 times cosines: squares and sums of these overflow or lose their digits in half precision
    student, teacher = rows(5, 4, 9, scale=100.0).to(dtype), rows(6, 4, 9, scale=100.0).to(dtype)
    got = LOSSES[name](student, teacher)
    assert got.dtype == torch.float32
    assert torch.equal(got, LOSSES[name](student.float(), teacher.float()))
    assert LOSSES[name](student.double(), teacher).dtype == torch.float64
    student.requires_grad_()
    LOSSES[name](student, teacher).backward()
    assert student.grad is not None and student.grad.dtype == dtype


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), r"student \(2, 3\) and teacher \(2, 4\) differ"),
        (torch.zeros(2, 3), torch.zeros(1, 3), r"teacher \(1, 3\) differ"),  # would broadcast
        (torch.zeros(0, 3), torch.zeros(0, 3), "at least one row"),
        (torch.tensor(1.0), torch.tensor(1.0), "at least one row"),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64), "the teacher's tensor is torch.int64"),
    ],
)
def test_bad_shapes_are_refused(name: str, student: Tensor, teacher: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LOSSES[name](student, teacher)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_bad_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="must be a positive number"):
        kl_divergence(torch.zeros(1, 2), torch.zeros(1, 2), temperature)
