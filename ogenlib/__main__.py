"""``python -m ogenlib``."""

from ogenlib.cli import script

script()
