"""What a trained host has learned, looked at: words near its context, what it sees where in an image."""

from ogenlib.analysis.dense import dense_features
from ogenlib.analysis.words import nearest_words

__all__ = ["dense_features", "nearest_words"]
