"""From single runs to tables, and the documents that hold them."""

from ogenlib.results.file import read_results
from ogenlib.results.tables import SCHEMA, all_tests, average_rows, mean_std, paired_tests, setting_of, summarize

__all__ = ["SCHEMA", "all_tests", "average_rows", "mean_std", "paired_tests", "read_results", "setting_of", "summarize"]
