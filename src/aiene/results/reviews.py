"""What readers made of a run: versions that are only ever added, and the tables and masks of the latest ones.

    OUT/review/READER/cases/CASE/v0001/    review.json, case.json, labels.nii.gz, nodes.nii.gz
    OUT/review/READER/patients.csv, nodes.csv, masks/CASE.nii.gz

A version is a folder that appears as a whole; none is changed or removed afterwards.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from aiene.csv_tables import table_bytes
from aiene.errors import InputError, OutputError, UsageError, file_name, joined, ours, said
from aiene.nodes.node import CountingRule
from aiene.results import tables
from aiene.results.atomic import make_folder, write_json, writing
from aiene.results.nifti import write_nifti
from aiene.results.ownership import Owned
from aiene.results.records import CaseArrays, CaseResult
from aiene.results.store import CASE, names_a_folder

ReviewStatus = Literal["to do", "accepted", "corrected", "set aside"]
DONE: tuple[ReviewStatus, ...] = ("accepted", "corrected")

FOLDER = "review"
AGREEMENT = "agreement"
"""The folder of the comparison of readers, which none can be called."""
MASKS = "masks"
_RECORD = "review.json"
_READER = re.compile(r"[\w][\w.-]{0,63}")
_VERSION = re.compile(r"v(\d{4,})")


@dataclass(frozen=True)
class Version:
    """One saved state of a case.

    Parameters
    ----------
    number : from 1; 0 is the model's answer, which is no version.
    reader, time, reason : who saved it, when (UTC, ISO 8601), and why.
    status : what the reader says of the case.
    edited : a person has changed the contours, in this version or one before it.
    joins : pairs of points (LPS mm) whose nodes count as one.
    rejected : nodes that were taken out, each with `name`, `reason` and what it measured.
    """

    number: int
    reader: str
    time: str
    status: ReviewStatus
    reason: str = ""
    edited: bool = False
    joins: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = ()
    rejected: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Saved:
    """A version and what was measured of it.

    Parameters
    ----------
    folder : with `labels.nii.gz` and `nodes.nii.gz`.
    """

    version: Version
    result: CaseResult
    folder: Path


class StaleError(UsageError):
    """Another window has saved the case since it was opened."""


def check_reader(name: str) -> str:
    """A reader's name, which is also that of a folder.

    Raises
    ------
    UsageError : it cannot be one.
    """
    if name.lower() == AGREEMENT:
        template = "--reader {}: this name is taken by the folder of the comparison; choose another."
        raise UsageError(said(template, ours(name)))
    if not _READER.fullmatch(name):
        raise UsageError("--reader: letters, digits, . _ and - only, at most 64; it names a folder.")
    return name


def readers(out: Path) -> tuple[str, ...]:
    """Who has saved something in a run's folder, by name."""
    folder = out / FOLDER
    found = (p.name for p in folder.glob("*") if _READER.fullmatch(p.name) and (p / "cases").is_dir())
    return tuple(sorted(found))


def one_reader(out: Path, name: str | None = None) -> Path:
    """The folder of a reader's work: of the named one, or of the only one.

    Raises
    ------
    UsageError : there is none, or more than one and no name.
    """
    known = readers(out)
    if name is not None and name in known:
        return out / FOLDER / name
    if name is None and len(known) == 1:
        return out / FOLDER / known[0]
    if not known:
        raise UsageError(said("{}: it has not been reviewed yet; start with aiene review.", file_name(out)))
    raise UsageError(
        said("{} has the work of {}; choose one with --reader.", file_name(out), joined(", ", known))
    )


def reviewed_masks(path: Path) -> Path:
    """The folder of masks that is meant: of a run's `review` folder (or a reader's) its masks, else the same.

    Raises
    ------
    UsageError : several readers, and none is named.
    """
    if path.name == FOLDER and readers(path.parent):
        return one_reader(path.parent) / MASKS
    if path.parent.name == FOLDER and (path / "cases").is_dir() and (path / MASKS).is_dir():
        return path / MASKS
    return path


def are_reviewed(masks: Path) -> bool:
    """Whether a folder of masks is that of a reader, who need not be done with every case."""
    reader = masks.parent
    return masks.name == MASKS and reader.parent.name == FOLDER and (reader / "cases").is_dir()


class ReviewStore:
    """The work of one reader in a run's folder.

    Parameters
    ----------
    out : the folder of the run.
    reader : see `check_reader`.
    """

    def __init__(self, out: Path, reader: str) -> None:
        self.out, self.reader = out, check_reader(reader)
        self.root = out / FOLDER / reader
        self.owned = Owned(out)

    def latest(self, case_id: str) -> Saved | None:
        """The last version of a case; None where there is none.

        Raises
        ------
        InputError : it is there and cannot be read.
        """
        numbers = self._numbers(case_id)
        return self.read(case_id, numbers[-1]) if numbers else None

    def history(self, case_id: str) -> list[Version]:
        """Every version of a case, in order."""
        return [self.read(case_id, number).version for number in self._numbers(case_id)]

    def read(self, case_id: str, number: int) -> Saved:
        """One version of a case.

        Raises
        ------
        InputError : it cannot be read.
        """
        folder = self._case(case_id) / f"v{number:04d}"
        try:
            record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
            result = CaseResult.from_json(json.loads((folder / CASE).read_text(encoding="utf-8")))
            joins = tuple((tuple(a), tuple(b)) for a, b in record.pop("joins"))
            rejected = tuple(record.pop("rejected"))
            return Saved(Version(joins=joins, rejected=rejected, **record), result, folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                folder, "this version of the review cannot be read", "put its files back"
            ) from error

    def save(
        self, version: Version, result: CaseResult, arrays: CaseArrays, *, base: int, anyway: bool = False
    ) -> Saved:
        """Add a version; nothing that is there is touched.

        Parameters
        ----------
        version : its number is given here.
        base : number of the version that it began from.
        anyway : also where another one was saved meanwhile; both stay.

        Raises
        ------
        StaleError : another one was saved meanwhile.
        OutputError : it cannot be written; nothing of it is left.
        """
        case = self._case(result.case_id)
        make_folder(case)
        partial = case / f".{secrets.token_hex(6)}.partial"
        try:
            make_folder(partial)
            write_nifti(arrays.labels, partial / "labels.nii.gz")
            write_nifti(arrays.nodes, partial / "nodes.nii.gz")
            write_json(partial / CASE, result.to_json())
            with self.owned.lock():
                before = self._numbers(result.case_id)
                last = before[-1] if before else 0
                if last != base and not anyway:
                    raise StaleError(
                        said(
                            "version {} of this case was saved in another window. Your work, which began "
                            "from version {}, is not lost: save it as another version, or load that one.",
                            last,
                            base,
                        )
                    )
                numbered = replace(version, number=last + 1, reader=self.reader)
                write_json(partial / _RECORD, asdict(numbered))
                with writing(case):
                    self.owned.put(partial, case / f"v{numbered.number:04d}", last=_RECORD)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return self.read(result.case_id, numbered.number)

    def write_tables(
        self, run: Sequence[CaseResult], *, axes: bool, model: str, rule: CountingRule
    ) -> dict[str, Path]:
        """`patients.csv` and `nodes.csv` of all cases, and the masks of those that are done.

        A case without a version is as the run left it; one that was set aside has no counts.

        Parameters
        ----------
        run : the results of the run.
        axes, model, rule : as in the run's own tables.

        Raises
        ------
        OutputError : they cannot be written.
        """
        latest = {result.case_id: self.latest(result.case_id) for result in run}
        results = [saved.result if (saved := latest[r.case_id]) else r for r in run]
        states = {case_id: "" if saved is None else saved.version.status for case_id, saved in latest.items()}
        aside = [r for r in results if states[r.case_id] == "set aside"]
        counted = [r for r in results if states[r.case_id] != "set aside"]
        left_out = [CaseResult(r.case_id, "failed", "set aside by the reader") for r in aside]
        patients = tables.patients_table([*counted, *left_out], model=model, rule=rule)
        nodes = tables.nodes_table(counted, axes=axes, rule=rule)
        paths = {}
        for name, table in (("patients", patients), ("nodes", nodes)):
            table["review_status"] = [states[case_id] for case_id in table["case_id"]]
            table["reader"] = [self.reader if states[case_id] else "" for case_id in table["case_id"]]
            paths[name] = self.root / f"{name}.csv"
            self.owned.write(paths[name], table_bytes(table))
        return paths

    def write_mask(self, saved: Saved) -> None:
        """The mask of a case that is done, by case id, for trainings and comparisons; of any other, none.

        Raises
        ------
        OutputError : it cannot be written.
        """
        target = self.root / MASKS / f"{saved.result.case_id}.nii.gz"
        if saved.version.status in DONE:
            make_folder(target.parent)
            self.owned.write(target, (saved.folder / "labels.nii.gz").read_bytes())
        else:
            self.owned.remove(target)

    def _case(self, case_id: str) -> Path:
        if not names_a_folder(case_id):
            raise OutputError(case_id, "it cannot be used as a folder name", "give the input another")
        return self.root / "cases" / case_id

    def _numbers(self, case_id: str) -> list[int]:
        found = (
            _VERSION.fullmatch(p.name) for p in self._case(case_id).glob("v*") if (p / _RECORD).is_file()
        )
        return sorted(int(match[1]) for match in found if match)
