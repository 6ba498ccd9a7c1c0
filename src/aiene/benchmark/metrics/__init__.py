"""What a benchmark measures: segmentation, nodes found, classification, patients."""

from aiene.benchmark.directions import higher_is_better
from aiene.benchmark.estimate import Estimate
from aiene.benchmark.metrics.calibration import Calibration, Reliability, calibration
from aiene.benchmark.metrics.case import CaseMetrics, case_metrics
from aiene.benchmark.metrics.checks import unknown_labels
from aiene.benchmark.metrics.classification import (
    PUBLISHED_THRESHOLD,
    Classification,
    Operating,
    RocCurve,
    classification,
    operating_point,
    roc_curve,
)
from aiene.benchmark.metrics.detection import Detection, SizeDetection, detection
from aiene.benchmark.metrics.froc import FALSE_RATES, Froc, froc
from aiene.benchmark.metrics.intervals import wilson
from aiene.benchmark.metrics.matching import (
    IOU_THRESHOLD,
    SIZE_CLASSES,
    NodeInfo,
    NodeMatch,
    NodePair,
    SizeClass,
    components,
    match_nodes,
    size_class,
)
from aiene.benchmark.metrics.patients import PatientAgreement, count_by_patient, patient_agreement
from aiene.benchmark.metrics.segmentation import (
    SEGMENTATION_METRICS,
    LabelMetrics,
    aggregated_dice,
    aggregated_dice_interval,
    label_metrics,
)

__all__ = [
    "FALSE_RATES",
    "IOU_THRESHOLD",
    "PUBLISHED_THRESHOLD",
    "SEGMENTATION_METRICS",
    "SIZE_CLASSES",
    "Calibration",
    "CaseMetrics",
    "Classification",
    "Detection",
    "Estimate",
    "Froc",
    "LabelMetrics",
    "NodeInfo",
    "NodeMatch",
    "NodePair",
    "Operating",
    "PatientAgreement",
    "Reliability",
    "RocCurve",
    "SizeClass",
    "SizeDetection",
    "aggregated_dice",
    "aggregated_dice_interval",
    "calibration",
    "case_metrics",
    "classification",
    "components",
    "count_by_patient",
    "detection",
    "froc",
    "higher_is_better",
    "label_metrics",
    "match_nodes",
    "operating_point",
    "patient_agreement",
    "roc_curve",
    "size_class",
    "unknown_labels",
    "wilson",
]
