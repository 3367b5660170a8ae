"""What the columns of base and new names mean, protocol by protocol."""

from __future__ import annotations

from markupsafe import Markup

from ogenlib.report.html import definitions

SIDE_TERMS = {  # of a protocol: what Base is, what New is, what competes for Joint H
    "cross-dataset": ("accuracy on test images of the dataset of training, choosing among its names",
                      "accuracy on images of another dataset, choosing among that dataset's names",
                      "the names of both datasets"),
    "domain-generalization": ("accuracy on test images of the domain of training",
                              "accuracy on images of another domain, choosing among its names",
                              "all names that were trained"),
    "domain-shift": ("accuracy on test images of the reference domain",
                     "accuracy on images of another domain, choosing among its names",
                     "all names that were trained"),
    "few-shot": ("accuracy on all test images, choosing among all names", "", ""),
}  # fmt: skip
BASE_TO_NEW_TERMS = (
    "accuracy on the names that were trained, choosing among base names only",
    "accuracy on names no image was trained for, choosing among new names only",
    "base and new names",
)


def glossary(protocol: str = "base-to-new") -> Markup:
    base, new, joint = SIDE_TERMS.get(protocol, BASE_TO_NEW_TERMS)
    if not new:
        return definitions({"Base": base})
    terms = {
        "Base": base,
        "New": new,
        "H": "harmonic mean of base and new: high only if both are. Per seed and then averaged, or of the two averages",
        "Joint H": f"the same, when every image has to choose among {joint} together",
        "ECE": "expected calibration error in the joint choice: how far confidence is from accuracy",
    }
    return definitions(terms)
