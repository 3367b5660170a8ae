"""``ogen``: the command line. Nothing heavy is imported before a command is known."""

from ogenlib.cli.main import main, script

__all__ = ["main", "script"]
