"""What a run left, read again: its record, its cases, and their label maps."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from aiene.csv_tables import cell
from aiene.errors import InputError, UsageError, file_name, said
from aiene.export.case import Maker
from aiene.geometry.grid import Grid, Volume
from aiene.ingest.case import AffineRule
from aiene.models.bundle import OperatingPoint
from aiene.nodes.node import CountingRule
from aiene.results.nifti import LPS_TO_RAS
from aiene.results.records import CaseResult, Status
from aiene.results.store import CASE, RunStore

_AGAIN = "run the case again"
_SAME_MM = 1e-2


@dataclass(frozen=True)
class RunRecord:
    """A run's own words about itself.

    Parameters
    ----------
    source : the input of the run.
    series : the series that the user asked for.
    maker : what made its results.
    model : name or folder of the bundle, as the run was told.
    profile : of the bundle; see `preprocess.profile`.
    axes : the published axes were measured.
    fg_labels : the labels that the user chose as nodes; None: those of the bundle.
    affine : which affine of a NIfTI file counted.
    pseudonymised : no name of the input may be shown; its path and UIDs are hashed.
    operating_point : of the segmenter; None: as its weights are.
    engine, registration : how the segmenter and the registration were computed.
    pos_from : the least `pos` of a node that counts.
    """

    source: Path
    series: str | None
    maker: Maker
    model: str
    profile: Literal["published", "open"]
    axes: bool = False
    pseudonymised: bool = False
    fg_labels: str | None = None
    operating_point: OperatingPoint | None = None
    engine: Literal["exact", "fast"] = "exact"
    registration: Literal["exact", "fast"] = "exact"
    affine: AffineRule = "auto"
    pos_from: float = 0.0

    @property
    def rule(self) -> CountingRule:
        """Which nodes counted."""
        return CountingRule(self.maker.ene_threshold, self.pos_from)


def read_run(out: Path) -> RunRecord:
    """The record of the run in a folder.

    Raises
    ------
    UsageError : it holds no results of a run.
    """
    files = sorted(out.glob("run*.json")) if out.is_dir() else []
    if not files:
        raise UsageError(
            said("{}: there are no results of a run; name the results folder of aiene run.", file_name(out))
        )
    try:
        content = json.loads(files[0].read_text(encoding="utf-8"))
        return _record(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            said(
                "{}: it is not a record of a run that this version understands; run the CTs again.",
                file_name(files[0]),
            )
        ) from error


def case_folders(out: Path) -> list[Path]:
    """The folders of the cases of a run, in byte order of their names."""
    found = (p for p in RunStore(out).cases.glob("*") if (p / CASE).is_file() and not p.name.startswith("."))
    return sorted(found, key=lambda p: p.name.encode())


def cases_of(out: Path) -> Iterator[CaseResult | InputError]:
    """The record of every case, or why it cannot be read."""
    for folder in case_folders(out):
        try:
            yield CaseResult.from_json(json.loads((folder / CASE).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            yield InputError(folder, "its case.json cannot be read", _AGAIN)


def every_case(out: Path) -> list[CaseResult]:
    """Every case of a run: of its folder, else of its row in `cases.csv` (not done yet, or not written)."""
    read: dict[str, CaseResult] = {}
    for one in cases_of(out):
        if isinstance(one, InputError):
            folder = one.path.name
            read[folder] = CaseResult(folder, "failed", str(one))
        else:
            read[one.case_id] = one
    known = {str(cell(case_id)) for case_id in read}
    for row in _rows(out / "cases.csv"):
        if row["case_id"] not in known:
            read[row["case_id"]] = CaseResult(row["case_id"], _status(row["status"]), row.get("reason") or "")
    return sorted(read.values(), key=lambda r: r.case_id.encode("utf-8", "surrogateescape"))


def _rows(path: Path) -> Sequence[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ()
    rows = csv.DictReader(io.StringIO(text))
    return [row for row in rows if row.get("case_id")] if "status" in (rows.fieldnames or ()) else ()


def _status(word: str) -> Status:
    """The status of a row; one that says it is done, but has no folder, is not."""
    return "skipped" if word not in get_args(Status) or word in ("ok", "no_nodes") else word  # type: ignore[return-value]


def read_labels(path: Path, grid: Grid, dtype: type[np.unsignedinteger[Any]]) -> Volume:
    """A label map that the run wrote, on the grid that its record tells.

    Parameters
    ----------
    path : `nodes.nii.gz` or `labels.nii.gz`.
    grid : the native grid of `case.json`, which has all digits.

    Raises
    ------
    InputError : it is gone, cannot be read, or lies elsewhere.
    """
    array, affine = _read(path)
    if array.shape != grid.size or _apart(grid, affine) > _SAME_MM:
        raise InputError(path, "it is on a different grid from the CT that was run", _AGAIN)
    return Volume(np.ascontiguousarray(array.astype(dtype)), grid)


def read_image(path: Path) -> npt.NDArray[Any]:
    """The voxels (z, y, x) of an image that the run wrote.

    Raises
    ------
    InputError : it is gone or cannot be read.
    """
    return np.ascontiguousarray(_read(path)[0])


def _read(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Voxels (z, y, x), and 4 x 4 from their indices to LPS mm."""
    if not path.is_file():
        raise InputError(path, "it has been removed since the run", _AGAIN)
    try:
        image = nib.Nifti1Image.from_filename(path)
        array = np.asarray(image.dataobj).transpose(2, 1, 0)
        affine = LPS_TO_RAS @ np.asarray(image.affine)[:, [2, 1, 0, 3]]
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise InputError(path, "it cannot be read", _AGAIN) from error
    return array, affine


def _apart(grid: Grid, affine: Any) -> float:
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(grid.size) - 1)
    points = corners @ affine[:3, :3].T + affine[:3, 3]
    return float(np.linalg.norm(points - grid.points(corners), axis=1).max())


def _record(content: dict[str, Any]) -> RunRecord:
    settings, bundle = content["settings"], content["bundle"]
    return RunRecord(
        source=Path(settings["input"]),
        series=settings.get("series"),
        maker=Maker(
            software_version=settings["aiene"],
            bundle_name=bundle["name"],
            bundle_version=bundle["version"],
            bundle_sha256=bundle["sha256"],
            notice=bundle["notice"],
            ene_threshold=float(settings["ene_threshold"]),
            own_masks=settings.get("masks") is not None,
            started=datetime.fromisoformat(content["started"]).astimezone(UTC),
        ),
        model=settings["model"],
        profile=bundle["profile"],
        axes=bool(settings.get("include_short_axes")),
        pseudonymised="pseudonyms" in settings,
        fg_labels=settings.get("fg_labels"),
        operating_point=settings.get("operating_point"),
        engine=settings.get("engine", "exact"),
        registration=settings.get("registration", "exact"),
        affine=settings.get("affine", "auto"),
        pos_from=float(settings.get("pos_from", 0.0)),
    )
