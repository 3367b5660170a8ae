"""What a host gets right: among the names of one side, and among all."""

from ogenlib.evaluate.label_space import LabelSpace, label_spaces
from ogenlib.evaluate.recall import Recalls, retrieval
from ogenlib.evaluate.scores import (
    JOINT,
    BaseToNew,
    accuracy,
    base_to_new,
    confusions,
    ece,
    harmonic_mean,
    of_split,
    predict_each,
    predict_logits,
    space_scores,
    split_scores,
    wrong_choices,
)
from ogenlib.evaluate.stacking import episodic_constant, thinned

__all__ = [
    "JOINT",
    "BaseToNew",
    "LabelSpace",
    "Recalls",
    "accuracy",
    "base_to_new",
    "confusions",
    "ece",
    "episodic_constant",
    "harmonic_mean",
    "label_spaces",
    "of_split",
    "predict_each",
    "predict_logits",
    "retrieval",
    "space_scores",
    "split_scores",
    "thinned",
    "wrong_choices",
]
