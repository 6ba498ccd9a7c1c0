"""The classifier: node positivity and extranodal extension for each node."""

from aiene.classify.classifier import UNSCORED, Classifier, load_classifier, load_dualnet, save_classifier
from aiene.classify.dualnet import DualNet, DualNetWidths
from aiene.classify.inputs import ClassifierInputs, Normalisation, classifier_inputs

__all__ = [
    "UNSCORED",
    "Classifier",
    "ClassifierInputs",
    "DualNet",
    "DualNetWidths",
    "Normalisation",
    "classifier_inputs",
    "load_classifier",
    "load_dualnet",
    "save_classifier",
]
