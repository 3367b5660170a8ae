"""The command line: exit codes and messages. Each command is a module of this folder, see `ogenlib.cli.command`.

Exit codes: 0 done, 1 failed, 2 wrong input (one line that says what was given and how to fix it); 130, 143 and 129
ended by SIGINT, SIGTERM and SIGHUP, with what was half written removed.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

from ogenlib.cli.config_file import apply_config, dump_config
from ogenlib.cli.inputs import writable
from ogenlib.cli.parser import build_parser
from ogenlib.cli.signals import Ending, end_silently, ending
from ogenlib.cli.terminal import PrintableFormatter, one_line


@contextmanager
def _messages(quiet: bool) -> Iterator[None]:
    """Show the library's own log on stderr while a command runs; the caller's logging is left as it was."""
    logger, handler = logging.getLogger("ogenlib"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter())
    level = logger.level
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def script() -> NoReturn:
    """``ogen`` itself: the process ends with the exit code of `main`."""
    code = main()
    end_silently()
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    with ending() as signals:
        code, line = _outcome(argv, signals)
        if line:
            with suppress(OSError):  # the terminal may be what has gone
                print(line, file=sys.stderr, flush=True)
    return code


def _outcome(argv: Sequence[str] | None, signals: Ending) -> tuple[int, str]:
    """The exit code, and what is left to say when everything of the command is closed, its progress bars too."""
    name, debug = "ogen", "--debug" in (sys.argv if argv is None else argv)
    try:
        args = build_parser().parse_args(argv)
        name = f"ogen {args.command}"
        apply_config(args.parser, args)
        debug = args.debug
        if args.print_config:
            print(dump_config(args.parser, args), end="")
        else:
            with _messages(args.quiet), writable(args.chosen.writes(args)):
                args.chosen.run(args)
        sys.stdout.flush()
    except BaseException as error:
        if signals.number is not None or isinstance(error, KeyboardInterrupt):
            return signals.code, f"{name}: {signals.reason}; the same command goes on from what is finished"
        if isinstance(error, SystemExit):  # of the parser, which has said why
            return int(error.code or 0), ""
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1, ""
        if debug or not isinstance(error, Exception):
            raise
        return _failure(name, error)
    return 0, ""


def _failure(name: str, error: Exception) -> tuple[int, str]:
    """Exit code and message of an error: of the input if the library refused it, else of the program.

    A package that is not installed is the caller's to install: what needs an extra says which.
    """
    text = one_line(error)
    if isinstance(error, ValueError | OSError | ModuleNotFoundError):
        return 2, f"{name}: {text.replace('skip_bad=True', '--skip-bad')}"
    return 1, f"{name}: failed with {type(error).__name__}: {text} (--debug shows where)"
