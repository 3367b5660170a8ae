"""``python -m ogenlib``."""

import sys

from ogenlib.cli import main

sys.exit(main())
