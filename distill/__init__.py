"""Self-distillation: teachers that average a student's own past, and the losses that pull it back to them.

Tensors in, tensors out: nothing here knows CLIP, files or training loops.
"""

from ogenlib.distill.almt import AdaptiveLocalMeanTeacher, window_size
from ogenlib.distill.beta import BetaTrajectoryAverage, beta_weights
from ogenlib.distill.ema import EMA, ema_over, ema_weights
from ogenlib.distill.gaussian import GaussianPromptAverage, gaussian_weights
from ogenlib.distill.losses import feature_cosine, kl_divergence, logit_l2
from ogenlib.distill.mean_teacher import MeanTeacher
from ogenlib.distill.teacher import Teacher

__all__ = [
    "EMA",
    "AdaptiveLocalMeanTeacher",
    "BetaTrajectoryAverage",
    "GaussianPromptAverage",
    "MeanTeacher",
    "Teacher",
    "beta_weights",
    "ema_over",
    "ema_weights",
    "feature_cosine",
    "gaussian_weights",
    "kl_divergence",
    "logit_l2",
    "window_size",
]
