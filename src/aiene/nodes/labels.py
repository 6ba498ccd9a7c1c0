"""Which labels of a segmentation are nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from aiene.errors import UsageError

FgLabels = tuple[int, ...] | Literal["any"]

GTVP = 1
"""The primary tumour, by the HECKTOR convention, in label maps of ours and of users."""
GTVN = 2
"""Malignant lymph nodes, likewise."""


def parse_fg_labels(text: str) -> FgLabels:
    """The word behind `--fg-labels`: `2`, `any`, or several values as in `1,2`.

    Text that holds no whole numbers means 2, as in the published code.

    Raises
    ------
    UsageError : a number that no label of an 8-bit map can have.
    """
    word = text.strip().lower()
    if word == "any":
        return "any"
    try:
        values = tuple(sorted({int(part) for part in word.split(",") if part.strip()}))
    except ValueError:
        return (GTVN,)
    if any(not 1 <= value <= 255 for value in values):
        raise UsageError(f"--fg-labels {text}: labels are 1 to 255; give 2, any, or several as in 1,2.")
    return values or (GTVN,)


def check_known(text: str, labels: FgLabels, known: Mapping[str, int]) -> None:
    """Whether a segmenter can give any of the chosen labels at all.

    Parameters
    ----------
    text : the word behind `--fg-labels`.
    known : the segmenter's label values by name.

    Raises
    ------
    UsageError : it cannot; every patient would be without nodes.
    """
    if labels == "any" or set(labels) & set(known.values()):
        return
    there = ", ".join(f"{value} ({name})" for name, value in known.items())
    raise UsageError(f"--fg-labels {text}: the model gives no such label; it gives {there}.")


def foreground(labels: npt.NDArray[Any], fg_labels: FgLabels) -> npt.NDArray[np.bool_]:
    """Where a label map holds one of the chosen labels."""
    if fg_labels == "any":
        return np.asarray(labels != 0)
    return np.isin(labels, fg_labels)


def contours(
    labels: npt.NDArray[Any], nodes: FgLabels, *, primary: int | None = GTVP
) -> npt.NDArray[np.uint8]:
    """A label map in the values of `labels.nii.gz`, whatever values it came in.

    Parameters
    ----------
    labels : integers of any shape.
    nodes : the labels that are nodes.
    primary : the label of the primary tumour, unless it is chosen as a node; None where there is none.

    Returns
    -------
    `GTVN` at nodes, `GTVP` at the primary tumour, 0 elsewhere.
    """
    result = np.zeros(labels.shape, dtype=np.uint8)
    if primary is not None:
        result[labels == primary] = GTVP
    result[foreground(labels, nodes)] = GTVN
    return result
