"""What the columns of base and new names mean."""

from __future__ import annotations

from markupsafe import Markup

from ogenlib.bench.protocols.registry import Shown
from ogenlib.report.html import definitions


def glossary(shown: Shown) -> Markup:
    if not shown.new:
        return definitions({"Base": shown.base})
    terms = {
        "Base": shown.base,
        "New": shown.new,
        "H": "harmonic mean of base and new: high only if both are. Per seed and then averaged, or of the two averages",
        "Joint H": f"the same, when every image has to choose among {shown.joint} together",
        "ECE": "expected calibration error in the joint choice: how far confidence is from accuracy",
    }
    return definitions(terms)
