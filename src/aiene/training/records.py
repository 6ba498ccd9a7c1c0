"""What a training works on and tells of: pairs of CT and label map, crops, steps."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from aiene.geometry.grid import Grid, RigidTransform, Volume
from aiene.ingest.case import Case

LABELS: Final = {"background": 0, "GTVp": 1, "GTVn": 2}
FOLDS = 5


@dataclass(frozen=True)
class Pair:
    """A CT and its label map.

    Parameters
    ----------
    case_id : of both.
    patient_id : cases of one patient share it, and are never in two folds.
    case : the CT, not read yet.
    label : file of the label map (0 background, 1 GTVp, 2 GTVn) on the CT's grid.
    """

    case_id: str
    patient_id: str
    case: Case
    label: Path


@dataclass(frozen=True, eq=False)
class TrainingCrop:
    """A CT and its labels as the networks see them.

    Parameters
    ----------
    image : float32, HU scaled to [0, 1], on the crop's grid in the template's space.
    labels : uint8 on the same grid: 0, 1 GTVp, 2 GTVn.
    to_native : takes points of the template's space to points of the CT.
    native : grid of the CT.
    """

    case_id: str
    patient_id: str
    image: Volume
    labels: Volume
    to_native: RigidTransform
    native: Grid


@dataclass(frozen=True)
class LeftOut:
    """A case that could not be preprocessed, and why."""

    case_id: str
    reason: str


def read_crop(file: Path, patient_id: str) -> TrainingCrop:
    """A crop that was kept.

    Parameters
    ----------
    file : of `prepared_crops`; its stem is the case id.
    patient_id : whose it is.
    """
    with np.load(file) as stored:
        grid = _grid(stored["grid"], stored["image"].shape)
        return TrainingCrop(
            file.stem,
            patient_id,
            Volume(stored["image"], grid),
            Volume(stored["labels"], grid),
            RigidTransform.from_matrix(stored["to_native"]),
            _grid(stored["native"], stored["native_size"]),
        )


def _grid(affine: npt.NDArray[np.float64], size: Sequence[int]) -> Grid:
    z, y, x = (int(n) for n in size)
    return Grid.from_affine(affine, (z, y, x))


def packed(crop: TrainingCrop, key: str) -> bytes:
    """The bytes of a crop's file; `key` says what it was made of."""
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        key=np.array(key),
        image=crop.image.array,
        labels=crop.labels.array,
        grid=crop.image.grid.affine,
        to_native=crop.to_native.matrix,
        native=crop.native.affine,
        native_size=np.array(crop.native.size),
    )
    return stream.getvalue()


def is_of(file: Path, key: str) -> bool:
    """Whether a crop lies there that was made from the same input in the same way."""
    try:
        with np.load(file) as stored:
            return str(stored["key"]) == key
    except (OSError, ValueError, KeyError):
        return False


OnNote = Callable[[str], None]
"""Told a sentence that the user should know, though nothing is wrong enough to stop."""


@dataclass(frozen=True)
class Step:
    """A step that is done.

    Parameters
    ----------
    stage : `prepare`, `plan`, `preprocess`, `train`, `validate`, ...
    done, of : how many of how many; 0 of 0 where a stage has no steps.
    seconds : since the stage began in this call.
    first : the step at which this call began, so that the time left can be told.
    said : figures of the step, by name.
    """

    stage: str
    done: int
    of: int
    seconds: float = 0.0
    first: int = 0
    said: dict[str, float] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """At the pace of this call; None before the first step, or where there are none."""
        here = self.done - self.first
        if not self.of or here <= 0 or self.seconds <= 0:
            return None
        return self.seconds / here * (self.of - self.done)


OnStep = Callable[[Step], None]
