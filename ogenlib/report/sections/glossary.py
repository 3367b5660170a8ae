"""What the columns of base and new names mean."""

from __future__ import annotations

from collections.abc import Collection

from markupsafe import Markup

from ogenlib.bench.protocols.registry import Shown
from ogenlib.report.html import definitions

COMPETING = {
    "joint_H_calibrated": "joint H after a constant is taken from the base names’ logits; it is chosen on training "
    "images, where half of the known names play the unknown",
    "ausuc": "area under the curve of joint accuracy on base against on new while that constant rises: no constant "
    "can move it",
    "gate_auroc": "how well the gap between the largest base and the largest new logit tells images of base names "
    "from others; 50 is guessing",
}
"""What the measures of competing names are."""
HEADINGS = {"joint_H_calibrated": "Joint H, calibrated", "ausuc": "AUSUC", "gate_auroc": "Gate AUROC"}


def glossary(shown: Shown, measured: Collection[str] = ()) -> Markup:
    """Of the columns that every such protocol has, and of those of `COMPETING` that are `measured`."""
    if not shown.new:
        return definitions({"Base": shown.base})
    terms = {
        "Base": shown.base,
        "New": shown.new,
        "H": "harmonic mean of base and new: high only if both are. Per seed and then averaged, or of the two averages",
        "Joint H": f"the same, when every image has to choose among {shown.joint} together",
        **{HEADINGS[key]: words for key, words in COMPETING.items() if key in measured},
        "ECE": "expected calibration error in the joint choice: how far confidence is from accuracy",
    }
    return definitions(terms)
