"""Finished runs: their record, cases and label maps read again, their tables made again, parts put together.

No network runs. Tables are made again with other choices of what counts.
"""

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
import pandas as pd
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from aiene.csv_tables import cell
from aiene.errors import InputError, UsageError, case_name, file_name, joined, ours, said
from aiene.geometry.grid import Grid, Volume
from aiene.ingest.case import AffineRule
from aiene.models.bundle import OperatingPoint
from aiene.nodes.node import CountingRule
from aiene.preprocess.profile import profile_named
from aiene.provenance import version
from aiene.results.atomic import make_folder
from aiene.results.nifti import LPS_TO_RAS
from aiene.results.ownership import refuse_overlap
from aiene.results.records import CaseResult, Status, recounted, same_ct_told, totals
from aiene.results.store import CASE, RECOUNTED, RunStore


@dataclass(frozen=True)
class Maker:
    """What made the result: software, bundle, settings, and when.

    Parameters
    ----------
    software_version : of this package at the time of the run.
    bundle_name, bundle_version, bundle_sha256 : the model bundle.
    notice : the bundle's own sentence, to stand wherever its results are shown.
    ene_threshold : a node counts as ENE where its probability is over this.
    own_masks : the user's masks took the place of the segmenter.
    started : when the run began (UTC); the date of every exported object, so that an export repeats.
    """

    software_version: str
    bundle_name: str
    bundle_version: str
    bundle_sha256: str
    notice: str
    ene_threshold: float
    own_masks: bool
    started: datetime


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
        return _run_of(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        template = "{}: it is not a record of a run that this version understands; run the CTs again."
        raise UsageError(said(template, file_name(files[0]))) from error


def cases_of(out: Path) -> Iterator[CaseResult | InputError]:
    """The record of every case in byte order of their folders' names, or why it cannot be read."""
    found = (p for p in RunStore(out).cases.glob("*") if (p / CASE).is_file() and not p.name.startswith("."))
    for folder in sorted(found, key=lambda p: p.name.encode()):
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
    array, affine = _read_nifti(path)
    if array.shape != grid.size or grid.apart_mm(affine) > _SAME_MM:
        raise InputError(path, "it is on a different grid from the CT that was run", _AGAIN)
    return Volume(np.ascontiguousarray(array.astype(dtype)), grid)


def read_image(path: Path) -> npt.NDArray[Any]:
    """The voxels (z, y, x) of an image that the run wrote.

    Raises
    ------
    InputError : it is gone or cannot be read.
    """
    return np.ascontiguousarray(_read_nifti(path)[0])


def _read_nifti(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
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


def _run_of(content: dict[str, Any]) -> RunRecord:
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


RECORD = "retable.json"
"""How the tables of a folder were made."""


@dataclass(frozen=True)
class Retabled:
    """New tables of a run.

    Parameters
    ----------
    before, after : the cases as the run counted them, and as they are counted now, by case id.
    tables : path of each table by name.
    finished : the run came to its end; else the tables hold the cases that are done.
    notice : the sentence that stands wherever results of the run's bundle are shown.
    """

    before: tuple[CaseResult, ...]
    after: tuple[CaseResult, ...]
    tables: dict[str, Path]
    finished: bool
    notice: str


def retable(
    out: Path, *, ene_threshold: float | None = None, pos_from: float | None = None, to: Path | None = None
) -> Retabled:
    """Write the tables of a run with another count of nodes; the run's own tables stay as they are.

    Parameters
    ----------
    out : the folder that the run filled.
    ene_threshold : a node counts as ENE where its probability is over this; None: as in the run.
    pos_from : a node counts where its `pos` is this or more; None: as in the run.
    to : folder for the tables; None is one in `out`, named after the threshold.

    Raises
    ------
    UsageError : no run there, a number outside 0 to 1, or `to` holds the tables of a run.
    InputError : the record of a case cannot be read.
    OutputError : a table cannot be written.
    """
    store = RunStore(out)
    results, finished = store.told()
    run = read_run(out)
    before, spread = run.rule, spread_of(run)
    now = CountingRule(
        before.ene_threshold if ene_threshold is None else ene_threshold,
        before.pos_from if pos_from is None else pos_from,
    )
    after = [recounted(result, before, now, spread) for result in results]
    if to is not None and any(to.glob("run*.json")):
        raise UsageError(
            said("{} holds the tables of a run, which stay; choose another folder with -o.", file_name(to))
        )
    target = RunStore(out / _name(now), store.owned) if to is None else RunStore(to)
    make_folder(target.root)
    tables = target.write_tables(
        after, axes=run.axes, model=run.maker.bundle_name, rule=now, now=run.maker.started
    )
    target.owned.write_json(target.root / RECORD, _record(run, before, now, len(after)))
    return Retabled(tuple(results), tuple(after), tables, finished, run.maker.notice)


def spread_of(run: RunRecord) -> float | None:
    """How far the registration of a run's profile moves an ENE probability; None: not at all."""
    return profile_named(run.profile, rescue=False).ene_spread


def _name(now: CountingRule) -> str:
    least = f"-pos-from-{now.pos_from!r}" if now.pos_from else ""
    return f"{RECOUNTED}{now.ene_threshold!r}{least}"


def _record(run: RunRecord, before: CountingRule, now: CountingRule, cases: int) -> dict[str, Any]:
    maker = run.maker
    return {
        "format": 1,
        "ene_threshold": now.ene_threshold,
        "pos_from": now.pos_from,
        "cases": cases,
        "run": {
            "started": maker.started.isoformat(),
            "ene_threshold": before.ene_threshold,
            "pos_from": before.pos_from,
            "bundle": maker.bundle_name,
            "bundle_sha256": maker.bundle_sha256,
            "aiene": maker.software_version,
        },
        "aiene": version(),
    }


_DONE = ("ok", "no_nodes")
_OF_THE_MACHINE = ("input", "masks")
"""Settings that say where files lay: on another machine they may lie elsewhere."""


@dataclass(frozen=True)
class Merged:
    """A run put together.

    Parameters
    ----------
    results : every case of the input, by case id.
    missing : cases that no part has done.
    absent : parts (from 0) that were not among the folders.
    notice : the sentence that stands wherever results of the run's bundle are shown.
    """

    results: tuple[CaseResult, ...]
    missing: tuple[str, ...]
    absent: tuple[int, ...]
    notice: str

    @property
    def exit_code(self) -> int:
        """0 where every case of the input is there and done."""
        return int(bool(self.missing) or any(result.status == "failed" for result in self.results))


def merge(parts: list[Path], out: Path) -> Merged:
    """Copy the cases of several folders of one run into a new one, and write the tables over all of them.

    A case that several have is taken from where it is done; the folders themselves stay as they are.

    Parameters
    ----------
    parts : folders that `aiene run` filled, as a rule with `--num-parts`.
    out : folder for the whole, which holds no run yet.

    Raises
    ------
    UsageError : a folder holds no run, the folders are of different runs, two of them did one case from other
        content, or `out` overlaps one of them or holds a run.
    InputError : a file of a part cannot be read.
    OutputError : the whole cannot be written.
    """
    if len({part.resolve() for part in parts}) < len(parts):
        raise UsageError("a folder is named twice; name each part once.")
    refuse_overlap(out, {said("the part {}", file_name(part)): part for part in parts})
    if any(out.glob("run*.json")):
        raise UsageError(said("{} holds a run already; choose a new folder with -o.", file_name(out)))
    stores = [RunStore(part) for part in parts]
    records = {part: store.records() for part, store in zip(parts, stores, strict=True)}
    _check_one_run(records)
    every = [record for of_part in records.values() for record in of_part.values()]
    run = read_run(parts[0])
    names = sorted({name for part in parts for name in _names(part)}, key=lambda n: n.encode())
    theirs = [(store, {result.case_id: result for result in store.results(names)}) for store in stores]
    chosen = {name: _best(name, theirs) for name in names}
    with RunStore(out) as whole:
        whole.open(every[0]["settings"], overwrite=False, case_ids=names)
        for store, result in chosen.values():
            if store is not None:
                whole.write_case(result, store.files(result.case_id))
        results = same_ct_told([result for _, result in chosen.values()])
        skipped = [r for r in results if r.status == "skipped"]
        missing = tuple(r.case_id for r in skipped if "--limit" not in r.reason)  # those the user left out
        whole.write_run(_document(records, results, whole=not missing))
        whole.write_tables(
            results, axes=run.axes, model=run.maker.bundle_name, rule=run.rule, now=datetime.now()
        )
    return Merged(tuple(results), missing, _absent(every), run.maker.notice)


def _check_one_run(records: dict[Path, dict[str, dict[str, Any]]]) -> None:
    first: dict[str, Any] | None = None
    leader = next(iter(records))
    for part, of_part in records.items():
        if not of_part:
            raise UsageError(
                said("{}: there are no results of a run; name results folders of aiene run.", file_name(part))
            )
        for record in of_part.values():
            settings = {k: v for k, v in record["settings"].items() if k not in _OF_THE_MACHINE}
            first = settings if first is None else first
            keys = first.keys() | settings.keys()
            if changed := sorted(k for k in keys if first.get(k) != settings.get(k)):
                template = "{} and {} are of different runs (different: {}); merge the parts of one run."
                raise UsageError(
                    said(template, file_name(part), file_name(leader), joined(", ", map(ours, changed)))
                )


def _names(part: Path) -> list[str]:
    file = part / "cases.csv"
    try:
        return list(pd.read_csv(file, dtype=str, keep_default_na=False)["case_id"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(file, "it cannot be read", "run this part again; it continues from there") from error


def _best(
    name: str, theirs: list[tuple[RunStore, dict[str, CaseResult]]]
) -> tuple[RunStore | None, CaseResult]:
    found = [(store, results[name]) for store, results in theirs if name in results]
    done = [(store, result) for store, result in found if result.status in _DONE]
    if len({result.facts.get("content_sha256") for _, result in done}) > 1:
        where = joined(" and ", [file_name(store.root) for store, _ in done[:2]])
        template = "{} did the case {} from different images; merge the parts of one run."
        raise UsageError(said(template, where, case_name(name)))
    if found:
        return (done or [f for f in found if f[1].status == "failed"] or found)[0]
    return None, CaseResult(name, "skipped", said("not done in any of the parts that were merged"))


def _absent(records: list[dict[str, Any]]) -> tuple[int, ...]:
    chosen = [record.get("selection", {}) for record in records]
    count = max(one.get("num_parts", 1) for one in chosen)
    there = {one.get("part_id", 0) for one in chosen if one.get("num_parts", 1) == count}
    return tuple(sorted(set(range(count)) - there))


def _document(
    records: dict[Path, dict[str, dict[str, Any]]], results: list[CaseResult], *, whole: bool
) -> dict[str, Any]:
    """The record of the whole: the first part's, with the cases and seconds of all."""
    every = [record for of_part in records.values() for record in of_part.values()]
    return {
        **every[0],
        "status": "finished" if whole else "stopped",
        "selection": {**every[0]["selection"], "num_parts": 1, "part_id": 0},
        "started": min(record["started"] for record in every),
        "merged": [
            {"folder": part.name, "record": name} for part, of_part in records.items() for name in of_part
        ],
        **totals(results),
    }
