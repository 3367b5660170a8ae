"""``report.html``: one page without a network, from a document of results."""

from ogenlib.report.page import build_report, write_report

__all__ = ["build_report", "write_report"]
