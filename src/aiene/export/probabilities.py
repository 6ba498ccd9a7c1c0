"""The segmenter's probabilities of a case: a run keeps none, so they are computed again from what it kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.errors import AieneError, CaseError, said
from aiene.export.case import ExportCase, SourceSeries, grid_of_facts, planes
from aiene.export.run_reader import RunRecord, read_image
from aiene.geometry.grid import RigidTransform, Volume
from aiene.geometry.resample import pull_labels
from aiene.models.bundle import Bundle, find_bundle
from aiene.nodes.node import GTVN, GTVP, contours, parse_fg_labels

if TYPE_CHECKING:
    from aiene.segment.segmenter import Segmenter


SHOWN: Final = ("GTVn", "GTVp")
_SHARE_OF_VOXELS: Final = 1e-3
"""Largest share of the labelled voxels that may differ from the run's: another device rounds otherwise."""


class Probabilities:
    """The probabilities of a run's cases; its segmenter is loaded once, when the first is asked for.

    Parameters
    ----------
    run : the run's record.
    """

    def __init__(self, run: RunRecord) -> None:
        self._run = run
        self._loaded: tuple[Bundle, Segmenter] | None = None

    def of(self, case: ExportCase, folder: Path) -> dict[str, npt.NDArray[np.float32]]:
        """Probability of each label on the source slices.

        Parameters
        ----------
        folder : the case's, with the `prepared.nii.gz` that `aiene run --keep-prepared` leaves.

        Returns
        -------
        `GTVn` and, where the model knows primary tumours, `GTVp`: float32 (slice, row, column), 0 to 1,
        linear between the network's voxels, 0 outside what the network saw.

        Raises
        ------
        CaseError : the run kept no prepared CT, took the user's masks, or the bundle is another one now; the
            network does not give the run's labels again.
        """
        if case.maker.own_masks:
            raise CaseError(
                "the masks were the user's own, so there are no probabilities", "leave this kind out"
            )
        file = folder / "prepared.nii.gz"
        if not file.is_file():
            raise CaseError(
                "a run keeps no probabilities, and without its prepared CT they cannot be computed again",
                "run the case again with --keep-prepared",
            )
        bundle, segmenter = self._load()
        if segmenter.takes_hu:
            raise CaseError(
                "the model's segmenter takes HU, which a run does not keep, so its probabilities cannot be "
                "computed again",
                "leave this kind out",
            )
        crop = Volume(read_image(file), grid_of_facts(case.result.facts["crop"]))
        to_native = RigidTransform.from_matrix(case.result.facts["to_native"])
        found = segmenter.probabilities(crop)
        named = bundle.card.labels
        nodes = (GTVN,) if self._run.fg_labels is None else parse_fg_labels(self._run.fg_labels)
        marked = contours(segmenter.in_values(found.argmax(axis=0)), nodes, primary=GTVP)
        _check_same(Volume(marked, crop.grid), to_native, case.labels)
        return {
            name: on_slices(Volume(found[named[name]], crop.grid), to_native, case.source)
            for name in SHOWN
            if name in named
        }

    def _load(self) -> tuple[Bundle, Segmenter]:
        if self._loaded is None:
            from aiene.segment.segmenter import load_bundle_segmenter

            try:
                bundle = find_bundle(self._run.model)
            except AieneError as error:
                raise CaseError(
                    said("the run's bundle {} is no longer installed", self._run.model), "install it again"
                ) from error
            if bundle.sha256 != self._run.maker.bundle_sha256:
                raise CaseError(
                    said("the bundle {} is not the one of the run", self._run.model),
                    "run the cases again with --overwrite",
                )
            self._loaded = (
                bundle,
                load_bundle_segmenter(
                    bundle, operating_point=self._run.operating_point, engine=self._run.engine
                ),
            )
        return self._loaded


def on_slices(values: Volume, to_native: RigidTransform, source: SourceSeries) -> npt.NDArray[np.float32]:
    """Values of the crop on the source slices, by linear interpolation; 0 outside the crop.

    Parameters
    ----------
    values : float32 on the crop's grid in the template's space.
    to_native : takes points of that space to the patient.
    """
    result = np.zeros(source.size, dtype=np.float32)
    corners = to_native.apply(values.grid.corners())
    for k, plane in enumerate(planes(source)):
        box = _box(corners, plane, source.size)
        if box is None:
            continue
        rows, columns = np.mgrid[box]
        points = (
            plane.origin
            + rows[..., None] * (plane.row_spacing * plane.along_column)
            + columns[..., None] * (plane.column_spacing * plane.along_row)
        )
        index = values.grid.indices(to_native.inverse().apply(points))
        result[k][box] = ndimage.map_coordinates(
            values.array, np.moveaxis(index, -1, 0), order=1, mode="constant", cval=0.0
        )
    return np.clip(result, 0, 1)


def _box(
    corners: npt.NDArray[np.float64], plane: Any, size: tuple[int, int, int]
) -> tuple[slice, slice] | None:
    """The rows and columns of a slice that a box of corner points can reach; None where it lies beside it."""
    off = corners - plane.origin
    heights = off @ np.cross(plane.along_row, plane.along_column)
    if heights.min() > 0 or heights.max() < 0:
        return None
    spans = []
    for along, spacing, count in (
        (plane.along_column, plane.row_spacing, size[1]),
        (plane.along_row, plane.column_spacing, size[2]),
    ):
        reach = off @ along / spacing
        low, high = max(int(np.floor(reach.min())), 0), min(int(np.ceil(reach.max())) + 1, count)
        if high <= low:
            return None
        spans.append(slice(low, high))
    return spans[0], spans[1]


def _check_same(found: Volume, to_native: RigidTransform, labels: Volume) -> None:
    """Whether labels that were found again on the crop are those of the run."""
    again = pull_labels(found, labels.grid, to_native.inverse())
    differ = np.count_nonzero(again.array != labels.array)
    if differ > _SHARE_OF_VOXELS * max(int(np.count_nonzero(labels.array)), 1):
        raise CaseError(
            said("computed again, the network gives {} voxels another label than in the run", differ),
            "run the case again with --keep-prepared --overwrite",
        )
