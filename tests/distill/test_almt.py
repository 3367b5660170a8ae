"""The adaptive local mean teacher: its schedule, its window and its ring buffer."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ogenlib.distill import AdaptiveLocalMeanTeacher, MeanTeacher, window_size


def run(total: int, m_min: int, m_max: int, decay: float, until: int) -> tuple[AdaptiveLocalMeanTeacher, list[Tensor]]:
    """Teacher after `until` epochs, and the snapshots 1, ..., until."""
    generator = torch.Generator().manual_seed(total)
    ctx = torch.zeros(4, 3)
    teacher = AdaptiveLocalMeanTeacher({"ctx": ctx}, total=total, m_min=m_min, m_max=m_max, decay=decay)
    seen = []
    for t in range(1, until + 1):
        ctx.copy_(torch.randn(ctx.shape, generator=generator))
        seen.append(ctx.clone())
        teacher.update(t)
    return teacher, seen


def test_window_by_hand() -> None:
    teacher = AdaptiveLocalMeanTeacher({"ctx": torch.zeros(1)}, total=50)
    # 7 * (1 - 1) / 2 = 0; 7 * (1 + 0) / 2 = 3.5; 7 * (1 + 1) / 2 = 7
    assert [teacher.window(t) for t in (0, 25, 50)] == [2, 5, 9]
    # a third of the way the cosine is -1/2: 7 / 4 = 1.75; at two thirds +1/2: 21 / 4 = 5.25
    assert [window_size(t, 60) for t in (20, 40)] == [3, 7]
    # 7 * (1 - cos(pi t / 50)) / 2 passes 1 at t = 12.34 and reaches 7 only at 50
    assert [teacher.window(t) for t in (12, 13, 49)] == [2, 3, 8]


@given(st.integers(1, 100), st.integers(0, 12), st.integers(0, 12))
def test_window_grows_from_m_min_to_m_max(total: int, m_min: int, more: int) -> None:
    sizes = [window_size(t, total, m_min, m_min + more) for t in range(total + 1)]
    assert sizes[0] == m_min and sizes[-1] == m_min + more
    assert all(a <= b for a, b in pairwise(sizes))
    for t, size in enumerate(sizes):
        exact = more * (1 - math.cos(math.pi * t / total)) / 2 + m_min
        assert exact - 1 - 1e-9 < size <= exact + 1e-9


@pytest.mark.parametrize(("total", "m_min", "m_max"), [(50, 2, 9), (20, 2, 9), (12, 0, 3), (9, 4, 4), (1, 0, 2)])
def test_equals_a_direct_average_at_every_epoch(total: int, m_min: int, m_max: int) -> None:
    used = set()
    for t in range(1, total + 1):
        teacher, seen = run(total, m_min, m_max, 0.9, t)
        m = math.floor((m_max - m_min) * (1 + math.cos(math.pi * (t + total) / total)) / 2) + m_min
        listed = [seen[i - 1] for i in range(t - m, t + 1) if i >= 1]
        theta = listed[0]
        for later in listed[1:]:
            theta = 0.9 * theta + (1 - 0.9) * later
        torch.testing.assert_close(teacher.state()["ctx"], theta)
        used.add(len(listed))
    assert used == set(range(min(used), min(m_max + 1, total) + 1))  # every window size was met


def test_state_follows_the_newest_update() -> None:
    """An average asked for earlier is not handed out again."""
    ctx = torch.zeros(1)
    teacher = AdaptiveLocalMeanTeacher({"ctx": ctx}, total=10, m_min=1, m_max=1, decay=0.5)
    got = []
    for t in (1, 2, 3):
        ctx.fill_(2.0**t)
        teacher.update(t)
        got += [teacher.state()["ctx"].item(), teacher.state()["ctx"].item()]
    assert got == [2, 2, 3, 3, 6, 6]


def test_a_window_over_everything_is_the_mean_teacher() -> None:
    ctx = torch.zeros(3)
    local = AdaptiveLocalMeanTeacher({"ctx": ctx}, total=6, m_min=6, m_max=6, decay=0.8)
    whole = MeanTeacher({"ctx": ctx}, decay=0.8)
    for t in range(1, 7):
        ctx.copy_(torch.tensor([1.0, t, t * t]))
        local.update(t)
        whole.update(t)
        assert torch.equal(local.state()["ctx"], whole.state()["ctx"])


def test_no_window_is_the_last_snapshot() -> None:
    teacher, seen = run(8, 0, 0, 0.9, 5)
    assert torch.equal(teacher.state()["ctx"], seen[-1])


def test_the_ring_holds_m_max_and_one() -> None:
    for t in range(1, 13):
        teacher, seen = run(20, 1, 4, 0.9, t)
        kept = {k: v for k, v in teacher.state_dict().items() if isinstance(v, Tensor)}
        epochs = range(max(1, t - 4), t + 1)
        assert kept.keys() == {f"snapshot/{i}/ctx" for i in epochs}
        assert all(torch.equal(kept[f"snapshot/{i}/ctx"], seen[i - 1]) for i in epochs)


def test_snapshots_keep_half_precision() -> None:
    ctx = torch.ones(2, dtype=torch.float16)
    teacher = AdaptiveLocalMeanTeacher({"ctx": ctx}, total=5)
    teacher.update(1)
    kept = [v for v in teacher.state_dict().values() if isinstance(v, Tensor)]
    assert [v.dtype for v in kept] == [torch.float16]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"total": 0}, "total=0: must be 1 or more"),
        ({"total": 10, "m_min": -1}, "m_min=-1: must be 0 or more"),
        ({"total": 10, "m_min": 5, "m_max": 4}, "m_min=5 is larger than m_max=4"),
        ({"total": 10, "decay": 1.0}, "decay=1.0"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptiveLocalMeanTeacher({"ctx": torch.zeros(1)}, **settings)


def test_the_schedule_ends_at_total() -> None:
    with pytest.raises(ValueError, match="t=11: the schedule ends at total=10"):
        window_size(11, 10)
    with pytest.raises(ValueError, match="t=-1"):
        window_size(-1, 10)
    with pytest.raises(TypeError, match=r"total=10\.0: must be a whole number"):
        window_size(1, 10.0)  # type: ignore[arg-type]
