"""Mean teacher over all snapshots: what the adaptive local mean teacher restricts to a window."""

from __future__ import annotations

from ogenlib.distill.named import NamedTensors, check_decay
from ogenlib.distill.running import RunningAverage


class MeanTeacher(RunningAverage):
    """``theta <- decay * theta + (1 - decay) * snapshot`` over snapshots 1, ..., t, started at the first.

    Meant for one update an epoch: call ``update(epoch)`` after epochs 1, 2, ...

    Args:
        decay: weight of the past. OGEN (https://arxiv.org/abs/2401.15914) is the setting; its value is not stated
            in the released code, which holds no teacher: 0.9 is our choice, the same as `AdaptiveLocalMeanTeacher`
            so that the two differ by the window alone.

    Raises:
        ValueError: `decay` outside [0, 1).
    """

    def __init__(self, tensors: NamedTensors, decay: float = 0.9) -> None:
        super().__init__(tensors, with_start=False)
        self.decay = check_decay(decay)

    def _rates(self, t: int) -> tuple[float, float]:
        return self.decay, 1 - self.decay

    def _settings(self) -> dict[str, int | float]:
        return {"mean_teacher_decay": self.decay}
