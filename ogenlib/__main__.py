"""``python -m ogenlib``."""

from ogenlib.cli.main import script

script()
