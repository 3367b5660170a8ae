"""What a host gets right: among the names of one side, and among all."""

from ogenlib.evaluate.label_space import LabelSpace, label_spaces
from ogenlib.evaluate.recall import Recalls, retrieval
from ogenlib.evaluate.scores import (
    BaseToNew,
    accuracy,
    base_to_new,
    confusions,
    ece,
    harmonic_mean,
    predict_each,
    predict_logits,
    space_scores,
    wrong_choices,
)

__all__ = [
    "BaseToNew",
    "LabelSpace",
    "Recalls",
    "accuracy",
    "base_to_new",
    "confusions",
    "ece",
    "harmonic_mean",
    "label_spaces",
    "predict_each",
    "predict_logits",
    "retrieval",
    "space_scores",
    "wrong_choices",
]
