"""What all teachers share: closed forms, order of updates, swapping, resuming, dtypes and what they remember."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ogenlib.distill import (
    EMA,
    AdaptiveLocalMeanTeacher,
    BetaTrajectoryAverage,
    GaussianPromptAverage,
    MeanTeacher,
    Teacher,
)

TOTAL = 12
MAKERS: dict[str, Callable[[dict[str, Tensor]], Teacher]] = {
    "ema": lambda x: EMA(x, decay=0.7),
    "mean": lambda x: MeanTeacher(x, decay=0.8),
    "almt": lambda x: AdaptiveLocalMeanTeacher(x, total=TOTAL, m_min=1, m_max=4, decay=0.6),
    "gaussian": lambda x: GaussianPromptAverage(x, total=TOTAL, mu=8, sigma=2),
    "beta": lambda x: BetaTrajectoryAverage(x, total=TOTAL),
    "beta-no-start": lambda x: BetaTrajectoryAverage(x, total=TOTAL, with_start=False),
}
OLD = 0.7  # decay of "ema" above; the tests below write the weights of every teacher out


def weights(kind: str, t: int) -> list[float]:
    """Weights of values 0 (the start), 1, ..., t by definition, with nothing of the library."""
    if kind == "ema":
        return [OLD**t, *(0.3 * OLD ** (t - i) for i in range(1, t + 1))]
    if kind == "mean":
        return [0.0, 0.8 ** (t - 1), *(0.2 * 0.8 ** (t - i) for i in range(2, t + 1))]
    if kind == "almt":
        m = math.floor(3 * (1 + math.cos(math.pi * (t + TOTAL) / TOTAL)) / 2) + 1
        first = max(1, t - m)
        inside = [0.6 ** (t - first), *(0.4 * 0.6 ** (t - i) for i in range(first + 1, t + 1))]
        return [0.0] * first + inside
    if kind == "gaussian":
        raw = [0.0, *(math.exp(-((i - 8) ** 2) / 8) for i in range(1, t + 1))]
    elif kind == "beta":
        points = [(i + 0.5) / (TOTAL + 1) for i in range(t + 1)]
        raw = [1 / math.sqrt(x * (1 - x)) for x in points]
    else:
        points = [(i - 0.5) / TOTAL for i in range(1, t + 1)]
        raw = [0.0, *(1 / math.sqrt(x * (1 - x)) for x in points)]
    return [w / sum(raw) for w in raw]


def student(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {"ctx": nn.Parameter(torch.zeros(2, 3, dtype=dtype)), "head/bias": nn.Parameter(torch.ones(4, dtype=dtype))}


def values(t: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100 + t)
    return {"ctx": torch.randn(2, 3, generator=generator), "head/bias": torch.randn(4, generator=generator)}


def put(tensors: dict[str, Tensor], t: int) -> None:
    """What the optimizer does: new numbers in the same memory."""
    with torch.no_grad():
        for name, value in values(t).items():
            tensors[name].copy_(value)


def trained(kind: str, updates: int, dtype: torch.dtype = torch.float32) -> tuple[Teacher, dict[str, Tensor]]:
    tensors = student(dtype)
    put(tensors, 0)
    teacher = MAKERS[kind](tensors)
    for t in range(1, updates + 1):
        put(tensors, t)
        teacher.update(t)
    return teacher, tensors


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@pytest.mark.parametrize("kind", MAKERS)
def test_closed_form_after_every_update(kind: str) -> None:
    for t in range(1, TOTAL + 1):
        teacher, _ = trained(kind, t)
        weight = weights(kind, t)
        assert sum(weight) == pytest.approx(1)
        got = teacher.state()
        for name in got:
            expected = sum(w * values(i)[name].double() for i, w in enumerate(weight))
            torch.testing.assert_close(got[name].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", MAKERS)
def test_an_unchanged_student_is_its_own_teacher(kind: str) -> None:
    tensors = student()
    put(tensors, 0)
    teacher = MAKERS[kind](tensors)
    for t in range(1, TOTAL + 1):
        teacher.update(t)
    for name, value in teacher.state().items():
        torch.testing.assert_close(value, tensors[name].detach())


@pytest.mark.parametrize("kind", MAKERS)
def test_resume_is_bit_identical(kind: str) -> None:
    """At every epoch of interruption, through the bytes of a safetensors file and JSON."""
    whole, _ = trained(kind, TOTAL)
    for stop in range(TOTAL + 1):
        before, _ = trained(kind, stop)
        saved = before.state_dict()
        tensors = {k: v for k, v in saved.items() if isinstance(v, Tensor)}
        numbers = {k: v for k, v in saved.items() if not isinstance(v, Tensor)}
        assert all(type(v) in (int, float) for v in numbers.values())
        read = {**json.loads(json.dumps(numbers)), **(load(save(tensors)) if tensors else {})}
        fresh = student()
        teacher = MAKERS[kind](fresh)  # made from other numbers than the first time
        teacher.load_state_dict(read)
        assert teacher.t == stop
        if stop:
            assert same(teacher.state(), before.state())
        for t in range(stop + 1, TOTAL + 1):
            put(fresh, t)
            teacher.update(t)
        assert same(teacher.state(), whole.state())
        assert same(*({k: v for k, v in x.state_dict().items() if isinstance(v, Tensor)} for x in (teacher, whole)))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_saved_state_does_not_move_with_the_teacher(kind: str) -> None:
    teacher, tensors = trained(kind, 3)
    saved, state = teacher.state_dict(), teacher.state()
    copies = {k: v.clone() for k, v in saved.items() if isinstance(v, Tensor)}
    kept = {k: v.clone() for k, v in state.items()}
    put(tensors, 4)
    teacher.update(4)
    assert same({k: v for k, v in saved.items() if isinstance(v, Tensor)}, copies)
    assert same(state, kept)
    for value in state.values():
        value.zero_()  # what a caller does to its copy is not seen
    assert any(bool(v.abs().sum()) for v in teacher.state().values())
    loaded, _ = trained(kind, 7)
    loaded.state()  # of before, not to be handed out after loading
    loaded.load_state_dict(saved)
    later = teacher.state_dict()
    before = teacher.state()
    for value in (*saved.values(), *later.values()):
        if isinstance(value, Tensor):
            value.zero_()
    assert same(loaded.state(), kept)
    put(tensors, 5)
    teacher.update(5)
    fresh, _ = trained(kind, 5)
    assert same(teacher.state(), fresh.state()) and not same(teacher.state(), before)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_the_students(kind: str, dtype: torch.dtype) -> None:
    teacher, tensors = trained(kind, 3, dtype)
    for name, value in teacher.state().items():
        assert value.dtype == dtype and value.device == tensors[name].device and not value.requires_grad


def test_half_precision_students_have_fp32_averages() -> None:
    """In bf16 steps of 0.001 towards 2 would be rounded away and the average would stay at 1."""
    tensors = {"x": torch.ones(1, dtype=torch.bfloat16)}
    teacher = EMA(tensors, decay=0.999)
    tensors["x"].fill_(2)
    for t in range(1, 1001):
        teacher.update(t)
    expected = torch.tensor([2 - 0.999**1000]).to(torch.bfloat16)
    assert torch.equal(teacher.state()["x"], expected)


@pytest.mark.parametrize("kind", MAKERS)
def test_memory_is_detached_and_its_own(kind: str) -> None:
    teacher, tensors = trained(kind, 6)
    memory = {k: v for k, v in teacher.state_dict().items() if isinstance(v, Tensor)}
    live = [v for k, v in vars(teacher).items() if k != "_tensors"]
    found: list[Tensor] = []
    while live:
        item = live.pop()
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, dict):
            live += item.values()
        elif not isinstance(item, (str, int, float, type(None))):
            live += list(item)
    assert len(found) >= len(memory) > 0
    own = {x.data_ptr() for x in tensors.values()}
    assert all(not x.requires_grad and x.grad_fn is None and x.data_ptr() not in own for x in found)


@pytest.mark.parametrize("kind", MAKERS)
def test_before_the_first_update(kind: str) -> None:
    teacher = MAKERS[kind](student())
    for call in (teacher.state, teacher.copy_to, teacher.swapped):
        with pytest.raises(RuntimeError, match=r"call update\(1\) before state\(\)"):
            call()


@pytest.mark.parametrize("kind", MAKERS)
def test_updates_out_of_order_are_refused(kind: str) -> None:
    teacher, _ = trained(kind, 2)
    before = teacher.state()
    for t in (0, 1, 2, 4):
        with pytest.raises(ValueError, match=rf"update\({t}\): expected update\(3\)"):
            teacher.update(t)
    for bad in (3.0, True, "3"):
        with pytest.raises(TypeError, match="whole number"):
            teacher.update(bad)  # type: ignore[arg-type]
    assert teacher.t == 2 and same(teacher.state(), before)
    teacher.update(3)


@pytest.mark.parametrize("kind", [k for k in MAKERS if k not in ("ema", "mean")])
def test_updates_end_at_total(kind: str) -> None:
    teacher, _ = trained(kind, TOTAL)
    with pytest.raises(ValueError, match=r"update\(13\): all 12 updates are done"):
        teacher.update(13)


def test_a_tensor_of_another_shape_is_refused() -> None:
    tensors = student()
    teacher = MeanTeacher(tensors)
    teacher.update(1)
    tensors["ctx"].data = torch.zeros(5)
    with pytest.raises(ValueError, match=r"'ctx' was \(2, 3\) and is now \(5,\)"):
        teacher.update(2)


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ({}, ValueError, "host.trainable"),
        ([torch.zeros(1)], TypeError, "got list"),
        ({"x": 1.0}, TypeError, "'x': float"),
        ({"x": torch.zeros(2, dtype=torch.int64)}, ValueError, "'x' is torch.int64"),
    ],
)
@pytest.mark.parametrize("kind", MAKERS)
def test_bad_tensors_are_refused(kind: str, tensors: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MAKERS[kind](tensors)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [EMA, MeanTeacher])
@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_bad_decay_is_refused(make: Callable[..., Teacher], decay: float) -> None:
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        make(student(), decay=decay)


def test_states_of_others_are_refused() -> None:
    states = {kind: trained(kind, 3)[0].state_dict() for kind in MAKERS}
    for kind, make in MAKERS.items():
        for other, state in states.items():
            if other != kind:
                teacher = make(student())
                with pytest.raises(ValueError, match=r"has the numbers|other settings"):
                    teacher.load_state_dict(state)
                assert teacher.t == 0


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    teacher, _ = trained("almt", 5)
    good, before = trained("almt", 4)[0].state_dict(), teacher.state()
    key = "snapshot/3/ctx"
    broken = {
        r"lacks \['snapshot/3/ctx'\]": {k: v for k, v in good.items() if k != key},
        r"has \['more'\] besides": {**good, "more": torch.zeros(1)},
        r"as \(7,\), expected \(2, 3\)": {**good, key: torch.zeros(7)},
        "as torch.float64": {**good, key: torch.zeros(2, 3, dtype=torch.float64)},
        r"decay: saved 0.5, here 0.6": {**good, "decay": 0.5},
        "after update 13, but total=12": {**good, "t": 13},
    }
    for message, state in broken.items():
        with pytest.raises(ValueError, match=message):
            teacher.load_state_dict(state)
        assert teacher.t == 5 and same(teacher.state(), before)
