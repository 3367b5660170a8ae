"""What a document of results (``ogenlib.results/1``) holds, as types: JSON when it is read, plain dicts in the program.

A key that only some protocols write, or that files of earlier versions lack, is not required. Accuracies and other
measures are in percent; None is what was not measured. The reader checks files against these types
(`ogenlib.results.file`), so a type here is a promise to files that exist.
"""

from __future__ import annotations

from typing import Literal, get_args

from typing_extensions import NotRequired, Required, TypedDict

Number = float | None
Pair = list[Number]  # mean and standard deviation over seeds
Mean = Pair | Number  # or a mean alone

SideMetric = Literal[
    "base", "new", "H", "joint_base", "joint_new", "joint_H", "ece_base", "ece_new", "ece_joint"
]  # fmt: skip
CompetingMetric = Literal["joint_H_calibrated", "ausuc", "gate_auroc"]
RetrievalMetric = Literal[
    "image_to_text_r1", "image_to_text_r5", "image_to_text_r10",
    "text_to_image_r1", "text_to_image_r5", "text_to_image_r10", "mean_recall",
]  # fmt: skip
DetectionMetric = Literal[
    "auroc", "aupr_in", "aupr_out", "fpr95_ood_positive", "fpr95_id_positive", "flagged"
]  # fmt: skip
Metric = Literal[SideMetric, CompetingMetric, RetrievalMetric, DetectionMetric]
Measure = Literal[Metric, "seconds"]
SummaryMetric = Literal[Metric, "H_of_means"]
METRICS: tuple[SideMetric, ...] = get_args(SideMetric)
COMPETING_METRICS: tuple[CompetingMetric, ...] = get_args(CompetingMetric)  # in rows where names with images compete
RETRIEVAL_METRICS: tuple[RetrievalMetric, ...] = get_args(RetrievalMetric)  # in rows of retrieval
DETECTION_METRICS: tuple[DetectionMetric, ...] = get_args(DetectionMetric)  # in rows of ood


class Measures(TypedDict, total=False):
    """Of one run in one setting."""

    base: Number
    new: Number
    H: Number
    joint_base: Number
    joint_new: Number
    joint_H: Number
    ece_base: Number
    ece_new: Number
    ece_joint: Number
    joint_H_calibrated: Number
    ausuc: Number
    gate_auroc: Number
    image_to_text_r1: Number
    image_to_text_r5: Number
    image_to_text_r10: Number
    text_to_image_r1: Number
    text_to_image_r5: Number
    text_to_image_r10: Number
    mean_recall: Number
    auroc: Number
    aupr_in: Number
    aupr_out: Number
    fpr95_ood_positive: Number
    fpr95_id_positive: Number
    flagged: Number
    seconds: Number


class Means(TypedDict, total=False):
    """The same over seeds."""

    base: Mean
    new: Mean
    H: Mean
    joint_base: Mean
    joint_new: Mean
    joint_H: Mean
    ece_base: Mean
    ece_new: Mean
    ece_joint: Mean
    joint_H_calibrated: Mean
    ausuc: Mean
    gate_auroc: Mean
    image_to_text_r1: Mean
    image_to_text_r5: Mean
    image_to_text_r10: Mean
    text_to_image_r1: Mean
    text_to_image_r5: Mean
    text_to_image_r10: Mean
    mean_recall: Mean
    auroc: Mean
    aupr_in: Mean
    aupr_out: Mean
    fpr95_ood_positive: Mean
    fpr95_id_positive: Mean
    flagged: Mean
    seconds: Mean


class Of(TypedDict):
    """Which method something is of; `control` where it is one of `ogenlib.utils.variant.CONTROLS`."""

    host: str
    ogen: bool
    control: NotRequired[str]


class Kind(TypedDict, total=False):
    """What tells settings of one dataset and domain apart, in protocols that have several."""

    shots: int
    task: str
    detector: str


class Score(Of, Measures):
    """What one run scored in one domain."""

    domain: str
    seed: int


class Row(Score, Kind, total=False):
    """One run in one setting. `constant`: of its `joint_H_calibrated`."""

    dataset: Required[str]
    epochs: int
    constant: float


class Summary(Of, Kind, Means, total=False):
    """A method in one setting, over its seeds. `H_of_means`: harmonic mean of the mean accuracies."""

    dataset: Required[str]
    domain: Required[str]
    n_seeds: int
    H_of_means: Number


class PairedTest(Kind, total=False):
    """Of a method against another, in `metric`, over `n` common seeds; `a` and `b` are `Variant.name`."""

    dataset: str
    domain: str
    a: str
    b: str
    metric: str
    difference: Number
    p: Number
    n: int


class TrainingCurve(Of, total=False):
    """Columns over the epochs of one run: its scores, and the cross-entropy that it was trained by."""

    dataset: str
    domain: str
    shots: int
    seed: int
    epoch: list[int]
    base: list[Number]
    new: list[Number]
    H: list[Number]
    joint_H: list[Number]
    ausuc: list[Number]
    ce: list[Number]


class StackedCurve(Of, total=False):
    """Joint accuracy on base and on new names of one run, for a rising constant that base names' logits are less by.

    base, new: points of the curve, base falling. zero, chosen: [base, new] at constant 0 and at `constant`.
    """

    dataset: str
    domain: str
    shots: int
    seed: int
    base: list[float]
    new: list[float]
    zero: list[float]
    chosen: list[float]
    constant: float


class Confusion(Of, total=False):
    """Images of one name for which another was chosen: `count` of the `of` images of the name, and some of them.

    true_is, predicted_is: the side of either name.
    keys: of the images, until `thumbnails` stand in their place.
    """

    dataset: str
    domain: str
    shots: int
    seed: int
    true: str
    predicted: str
    true_is: str
    predicted_is: str
    count: Number
    of: Number
    keys: list[str]
    thumbnails: list[str]


_Class = TypedDict("_Class", {"class": str}, total=False)  # a word that no attribute may have


class PerClass(Of, _Class, total=False):
    """Accuracy over the seeds among the `n` images of a class: within its side, and among all names."""

    dataset: str
    domain: str
    shots: int
    side: str
    n: int
    accuracy: Mean
    joint_accuracy: Mean


_Place = TypedDict("_Place", {"class": int}, total=False)


class FeaturePoint(_Place, total=False):
    """A feature in the plane of a projection; `class` counts its classes."""

    kind: str
    xy: list[float]


class Projection(Of, total=False):
    """Real and synthesized features of some classes in one plane. `variant`: of the generator."""

    domain: str
    shots: int
    variant: str
    classes: list[str]
    points: list[FeaturePoint]


RobustMetric = Literal["id", "ood", "zero_shot"]
PointMeasure = Literal["alpha", "val", RobustMetric, "effective_robustness"]
ROBUST_METRICS: tuple[RobustMetric, ...] = get_args(RobustMetric)


class AlphaPoint(TypedDict, total=False):
    """A trained host at one alpha of WiSE-FT: validation, domain of training, shifts, other datasets."""

    alpha: Number
    val: Number
    id: Number
    ood: Number
    zero_shot: Number
    effective_robustness: Number


class Robustness(Of, total=False):
    """One host trained with one seed; see `ogenlib.results.robustness`."""

    seed: Required[int]
    shots: int
    val: Number
    id: Number
    ood: Number
    zero_shot: Number
    shifts: dict[str, Number]
    retention: dict[str, Number]
    curve: list[AlphaPoint] | None
    why_no_curve: str | None
    others: dict[str, AlphaPoint]
    points: dict[str, AlphaPoint]


class RobustnessSummary(Of, total=False):
    """A point of a method, over its seeds."""

    point: str
    n_seeds: int
    alpha: Mean
    val: Mean
    id: Mean
    ood: Mean
    zero_shot: Mean
    effective_robustness: Mean


class Picture(TypedDict):
    """Score histograms and ROC curves of one detector, by group of images."""

    edges: list[float]
    counts: dict[str, list[int]]
    roc: dict[str, list[float]]


class Detection(Of, total=False):
    """Detectors of unknown classes on one run; `missing`: those that do not take the host, and why."""

    shots: int
    seed: int
    detectors: dict[str, Picture]
    missing: dict[str, str]


class PublishedRow(TypedDict, total=False):
    """Accuracies of a paper, where they were read, and in which setting they were measured."""

    dataset: str
    method: str
    base: Number
    new: Number
    H: Number
    tag: str
    source: str
    setting: str


class Skipped(TypedDict, total=False):
    """A file that could not be read."""

    file: str
    reason: str


class ProtocolCard(TypedDict, total=False):
    """What a benchmark was, as far as the library reads it again; every protocol adds lines of its own.

    hosts: settings of every method as it was run, by `Variant.name`.
    """

    name: str
    dataset: str
    suite: str
    home_domain: str
    train_domains: list[str]
    test_domains: list[str]
    n_base: int
    n_new: int
    shots: int | None
    shots_list: list[int]
    seeds: list[int]
    epochs: int
    backbone: dict[str, object] | str
    hosts: dict[str, dict[str, object]]
    selection: str
    new_names_known_in_training: bool
    detectors: dict[str, str]
    effective_robustness: str
    skipped: list[Skipped | str]
    versions: dict[str, str]
    threads: int
    command: str | list[str]
    git: str | None
    date: str
    seconds: float


class RobustnessTables(TypedDict, total=False):
    """What protocols under shift add to a document."""

    robustness: list[Robustness]
    robustness_summary: list[RobustnessSummary]


class Results(RobustnessTables, total=False):
    """A whole document."""

    schema: Required[Literal["ogenlib.results/1"]]
    protocol: Required[ProtocolCard]
    rows: Required[list[Row]]
    summary: Required[list[Summary]]
    curves: list[TrainingCurve]
    stacking: list[StackedCurve]
    tests: list[PairedTest]
    confusions: list[Confusion]
    per_class: list[PerClass]
    projection: list[Projection]
    published: list[PublishedRow]
    detection: list[Detection]
