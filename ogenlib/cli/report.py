"""``ogen report``: the page of a benchmark from its results."""

from __future__ import annotations

import argparse

from ogenlib.cli.command import Command
from ogenlib.cli.printing import note
from ogenlib.cli.values import file_name


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=file_name, metavar="RESULTS", help="a results.json or the folder that holds it")


def run(args: argparse.Namespace) -> None:
    from ogenlib.report.page import write_report
    from ogenlib.results.file import read_results

    document = read_results(args.results / "results.json" if args.results.is_dir() else args.results)
    write_report(document, args.out / "report.html")
    note(args, f"report   {args.out / 'report.html'}")


COMMAND = Command("report", "write report.html again from a results.json", options, run)
