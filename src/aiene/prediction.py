"""One CT to its nodes from Python, and the results of a run read back: the same records for both.

`predict` calls the functions of `pipeline` that `aiene run` calls, so the same CT gives the same numbers as a
file, as an image in memory and as an array.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from itertools import count
from pathlib import Path
from typing import TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from aiene.csv_tables import probability_text
from aiene.device import resolve_device
from aiene.errors import (
    AieneError,
    CaseError,
    InputError,
    UsageError,
    case_name,
    counted,
    file_name,
    library_reason,
    ours,
    said,
)
from aiene.finished_runs import read_labels, read_run, spread_of
from aiene.geometry.grid import Grid, Triple, Volume, volume_of
from aiene.ingest.case import Case, NativeCt
from aiene.ingest.find import find_cases
from aiene.ingest.lattice import PIXEL_TYPES, narrow
from aiene.ingest.masks import on_grid, read_mask
from aiene.ingest.read import checked
from aiene.ingest.readers.nifti import ct_of_image
from aiene.models.bundle import find_bundle, read_bundle, verify_bundle
from aiene.nodes.node import GTVN, CountingRule
from aiene.pipeline import (
    STAGES,
    Networks,
    OnProgress,
    OnStage,
    PreprocessedCase,
    follower,
    infer_case,
    load_networks,
    preprocess_case,
    preprocess_ct,
    settings_for,
)
from aiene.preprocess.preprocess import Preparation, load_preparation
from aiene.results.records import CaseResult, NodeResult, recounted
from aiene.results.store import RunStore

Array = npt.NDArray[np.generic]
Image: TypeAlias = str | os.PathLike[str] | sitk.Image | nib.Nifti1Pair | Volume | Array
"""A file or folder with one CT, an image in memory, or voxels (z, y, x), which need a grid."""

_CT, _MASK = Path("the image"), Path("the mask")  # what messages call things without a file


@dataclass(frozen=True, eq=False, repr=False)
class NodePrediction:
    """One lymph node.

    Parameters
    ----------
    record : everything that the tables tell of it.
    """

    record: NodeResult
    _map: Callable[[], Volume]

    def __repr__(self) -> str:
        size = f"{self.volume_mm3:.0f} mm3"
        pos, ene = (probability_text(value, missing="not judged") for value in (self.pos, self.ene))
        return f"<NodePrediction {self.name}: {self.side}, {size}, pos {pos}, ene {ene}>"

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Its voxels, bool (z, y, x) on the native grid."""
        return np.asarray(self._map().array == self.record.value)

    @property
    def name(self) -> str:
        """`GTVn_01` for the largest contour, and so on."""
        return self.record.name

    @property
    def ene(self) -> float | None:
        """Probability of extranodal extension, 0 to 1; None where the classifier could not judge the node."""
        return self.record.ene

    @property
    def pos(self) -> float | None:
        """Probability that the node holds tumour, 0 to 1; None where `ene` is."""
        return self.record.pos

    @property
    def is_ene(self) -> bool | None:
        """Whether `ene` is over the threshold; None where `ene` is."""
        verdict = self.record.ene_classification
        return None if verdict is None else verdict == 1

    @property
    def volume_mm3(self) -> float:
        """Of `mask`, in mm3."""
        return self.record.native_volume_mm3

    @property
    def short_axis_mm(self) -> float | None:
        """Short axis in the axial slice of largest area, in mm; None where `mask` is empty."""
        return self.record.native_short_axis_mm

    @property
    def long_axis_mm(self) -> float | None:
        """Long axis there, in mm; None where `mask` is empty."""
        return self.record.native_long_axis_mm

    @property
    def centroid_lps_mm(self) -> Triple:
        """(x, y, z) in the patient: x grows to the left, y to the back, z to the head."""
        return self.record.centroid_lps_mm

    @property
    def side(self) -> str:
        """`left`, `right` or `midline`; empty where the CT does not say how the patient lies."""
        return self.record.side


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The nodes of one CT.

    Parameters
    ----------
    record : everything that the tables and `case.json` tell of it.
    rule : which of its nodes count; see `at_threshold`.
    notice : the sentence that stands wherever results of this model are shown.
    """

    record: CaseResult
    rule: CountingRule
    notice: str
    _map: Callable[[], Volume]
    _spread: float | None = None

    def __repr__(self) -> str:
        counts = f"{counted(len(self.nodes), 'node')}, {self.n_ai_ene} AI-ENE"
        found = self.reason if self.n_ai_ene is None else counts
        return f"<Result {self.case_id}: {self.status}, {found}. {self.notice}>"

    @property
    def case_id(self) -> str:
        """The case's id in the tables."""
        return self.record.case_id

    @property
    def status(self) -> str:
        """`ok`, `no_nodes`, and in a run `failed` or `skipped`."""
        return self.record.status

    @property
    def reason(self) -> str:
        """Why the case failed or was skipped; empty otherwise."""
        return self.record.reason

    @property
    def warnings(self) -> tuple[str, ...]:
        """What you should look at before you use the result."""
        return self.record.warnings

    @property
    def nodes(self) -> tuple[NodePrediction, ...]:
        """The nodes, the largest first."""
        return tuple(NodePrediction(node, self._map) for node in self.record.nodes)

    @property
    def n_ai_ene(self) -> int | None:
        """The AI-ENE node number by `rule`; None where a case failed."""
        return self.record.n_ai_ene if self.status in ("ok", "no_nodes") else None

    @property
    def grid(self) -> Grid:
        """The native grid: where the voxels of the CT and of every mask lie.

        Raises
        ------
        CaseError : the case failed or was skipped.
        """
        return _grid_of(self.record)

    @property
    def node_map(self) -> Volume:
        """uint16 on `grid`: k in the voxels of `GTVn_k`, 0 elsewhere. Treat it as read-only.

        Raises
        ------
        InputError : the image was removed or changed since the run.
        CaseError : the case failed or was skipped.
        """
        return self._map()

    def at_threshold(self, ene: float, *, pos_from: float | None = None) -> Result:
        """The same nodes counted at another threshold; no network runs again.

        Parameters
        ----------
        ene : a node counts as ENE where its probability is over this.
        pos_from : a node counts where its `pos` is this or more; None: as before.

        Raises
        ------
        UsageError : a number outside 0 to 1.
        """
        now = CountingRule(ene, self.rule.pos_from if pos_from is None else pos_from)
        return replace(self, record=recounted(self.record, self.rule, now, self._spread), rule=now)


def predict(
    image: Image,
    grid: Grid | None = None,
    *,
    model: str | os.PathLike[str] = "default",
    device: str = "auto",
    masks: Image | None = None,
    fg_labels: str | None = None,
    ene_threshold: float | None = None,
    progress: bool | OnProgress = False,
) -> Result:
    """Find the lymph nodes of one CT and estimate their probability of extranodal extension.

    The networks stay loaded for the next call with the same model and device.

    Parameters
    ----------
    image : a file, a folder with one DICOM series, a SimpleITK or nibabel (NIfTI) image, a `Volume`, or an
        array (z, y, x); in HU.
    grid : where the voxels of an array lie in the patient; only for an array.
    model : name or folder of a model bundle.
    device : `auto`, `cpu`, `cuda`, `cuda:1`, ...
    masks : your own contours in place of the segmenter's: a label map on the CT's grid as a file, image or
        array, in which 2 is nodes and 1 the primary tumour, or a bool array of nodes.
    fg_labels : the labels of nodes, such as `1` or `1,3`, where the above does not hold.
    ene_threshold : a node counts as ENE where its probability is over this; None takes the bundle's.
    progress : True shows a bar (tqdm, in notebooks too); a function `(done, total, words)` is told of each
        stage.

    Returns
    -------
    The nodes on the CT's own grid; the same numbers as those of `aiene run`.

    Raises
    ------
    InputError : the CT or the masks cannot be used.
    CaseError : the CT holds no neck, or it cannot be found.
    UsageError : several CTs, or arguments that do not fit.
    ModelError : the bundle cannot be used.
    """
    bundle = find_bundle(model)
    settings = settings_for(
        bundle, ene_threshold=ene_threshold, fg_labels=fg_labels, own_masks=masks is not None
    )
    target = str(resolve_device(device))
    steps, tell = count(1), follower(progress, unit="stage")

    def on_stage(stage: str) -> None:
        tell(next(steps), len(STAGES), stage)

    preparation, networks = _loaded(str(bundle.path), bundle.sha256, target, masks is not None)
    at = _ready(image, grid, masks, preparation, on_stage)
    record, arrays = infer_case(
        at,
        networks,
        settings,
        labels=bundle.card.labels,
        midline_x=preparation.midline_x,
        on_stage=on_stage,
    )
    spread = at.prepared.ene_spread
    return Result(record, settings.rule, bundle.card.notice, lambda: arrays.nodes, spread)


def load_results(out: str | os.PathLike[str]) -> list[Result]:
    """The results of `aiene run` or `run_cohort`, every case with its status, by case id.

    Masks are read when they are asked for.

    Parameters
    ----------
    out : the folder that the run filled.

    Raises
    ------
    UsageError : it holds no results of a run.
    InputError : the record of a case cannot be read.
    """
    store = RunStore(Path(out))
    records, _ = store.told()
    run = read_run(store.root)
    spread, notice = spread_of(run), run.maker.notice
    files = [store.case_folder(record.case_id) / "nodes.nii.gz" for record in records]
    return [
        Result(record, run.rule, notice, cache(partial(_node_map, file, record)), spread)
        for record, file in zip(records, files, strict=True)
    ]


def _grid_of(record: CaseResult) -> Grid:
    if "native" not in record.facts:
        problem = said(
            "{} has no grid and no masks: it is {}", case_name(record.case_id), ours(record.status)
        )
        raise CaseError(
            problem, said("{}", record.reason.rstrip(".")) if record.reason.rstrip(".") else "run it again"
        )
    return Grid.from_facts(record.facts["native"])


def _node_map(file: Path, record: CaseResult) -> Volume:
    return read_labels(file, _grid_of(record), np.uint16)


@lru_cache(maxsize=2)  # with and without a segmenter
def _loaded(folder: str, _sha256: str, device: str, own_masks: bool) -> tuple[Preparation, Networks]:
    """What a bundle needs, verified and loaded once; its hash is part of what the cache goes by."""
    bundle = read_bundle(Path(folder))
    verify_bundle(bundle)
    return load_preparation(bundle), load_networks(bundle, resolve_device(device), own_masks=own_masks)


def _ready(
    image: Image, grid: Grid | None, masks: Image | None, preparation: Preparation, on_stage: OnStage
) -> PreprocessedCase:
    if isinstance(image, str | os.PathLike):
        if grid is not None:
            raise UsageError("a file has its own grid; leave grid= out.")
        case = _one_case(Path(image))
        at = preprocess_case(case, preparation, on_stage=on_stage)
        affine = case.affine
    else:
        ct = checked(_CT, _in_memory(_CT, image, grid))
        case, affine = Case("image", str(ct.source["kind"]), ()), "auto"
        at = preprocess_ct(case, ct, preparation, None, source={"kind": ct.source["kind"]}, on_stage=on_stage)
        on_stage("read")
    if masks is None:
        return at
    native = at.prepared.native
    if isinstance(masks, str | os.PathLike):
        return replace(at, mask=read_mask(Path(masks), like=native, affine=affine), mask_file=Path(masks))
    return replace(at, mask=on_grid(_MASK, _mask_volume(masks, native), native), mask_file=_MASK)


def _one_case(path: Path) -> Case:
    found, _ = find_cases(path)
    if len(found) > 1:
        template = "{} holds {} CTs; name one of them, or run all with aiene.run_cohort."
        raise UsageError(said(template, file_name(path), len(found)))
    if not isinstance(found[0], Case):
        raise AieneError(ours(found[0].reason))
    return found[0]


def _in_memory(where: Path, image: object, grid: Grid | None) -> NativeCt:
    """The voxels of an image in memory or an array; `where` is what messages call it."""
    if isinstance(image, np.ndarray):
        if grid is None:
            raise UsageError("an array alone has no position in space; give grid= too.")
        if tuple(image.shape) != grid.size:
            raise UsageError(
                said("an array of shape {} (z, y, x) on a grid of size {}.", image.shape, grid.size)
            )
        image = Volume(image, grid)
    elif grid is not None:
        raise UsageError("an image has its own grid; leave grid= out.")
    if isinstance(image, nib.Nifti1Pair):
        return ct_of_image(where, image)
    if isinstance(image, sitk.Image):
        image = _of_sitk(where, image)
    if not isinstance(image, Volume):
        raise UsageError(
            said(
                "{} cannot be read; give a path, a SimpleITK or nibabel NIfTI "
                "image, or an array with its grid.",
                ours(type(image).__name__),
            )
        )
    kind = image.array.dtype.newbyteorder("=").str[1:]
    if kind not in PIXEL_TYPES:
        problem = said("its voxels are {} instead of plain numbers", ours(str(image.array.dtype)))
        raise InputError(where, problem, "give a greyscale CT")
    values = np.ascontiguousarray(image.array, dtype=image.array.dtype.newbyteorder("="))
    return NativeCt(Volume(narrow(values), image.grid), PIXEL_TYPES[kind], {"kind": "array"})


def _of_sitk(where: Path, image: sitk.Image) -> Volume:
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(where, "it has several values per voxel", "give a greyscale CT")
    try:
        return volume_of(image)
    except ValueError as error:
        raise InputError(
            where, said("its position cannot be used ({})", library_reason(error)), "give one 3-D image"
        ) from error


def _mask_volume(masks: object, native: Grid) -> Volume:
    """A mask in memory; a bool array marks nodes."""
    if isinstance(masks, np.ndarray):
        if tuple(masks.shape) != native.size:
            problem = said("its shape {} (z, y, x) is not the CT's, {}", masks.shape, native.size)
            raise InputError(_MASK, problem, "resample the mask onto the CT's grid")
        masks = Volume(masks, native)
    if isinstance(masks, Volume) and masks.array.dtype == bool:
        return masks.with_array(masks.array.astype(np.uint8) * GTVN)
    return _in_memory(_MASK, masks, None).volume
