"""The output folder of a run: case folders that are whole or absent, and the tables over them."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from aiene.csv_tables import table_bytes
from aiene.errors import InputError, OutputError, UsageError, file_name, joined, ours, reading, said
from aiene.geometry.grid import RigidTransform
from aiene.nodes.node import CountingRule
from aiene.results import tables
from aiene.results.atomic import (
    Room,
    clear_abandoned,
    make_folder,
    others_at_work,
    read_json,
    write_bytes,
    write_json,
    writing,
)
from aiene.results.nifti import nifti_bytes
from aiene.results.ownership import Owned
from aiene.results.records import CaseArrays, CaseResult

RUN = "run.json"
CASE = "case.json"
RECOUNTED = "ene-threshold-"
"""How the names of folders begin that hold the tables of a run at another threshold."""

CaseFiles = dict[str, bytes]
"""Content of the files of a case's images, by name."""


class RunStore:
    """One output folder: only what is ours in it is written over or removed.

    A context: half-written things lie in a folder of their own below `root`, which ends with the context, or
    is cleared by the next call where this process is killed.

    Parameters
    ----------
    root : the folder; made by `open` or on entering the context.
    owned : who keeps note of what is ours in it, where it is a folder within another of ours.
    """

    def __init__(self, root: Path, owned: Owned | None = None) -> None:
        self.root = root
        self.owned = owned or Owned(root)
        self._room: Room | None = None

    def __enter__(self) -> Self:
        """Make the folder for what is half written.

        Raises
        ------
        OutputError : nothing can be written there.
        """
        self._room = Room(self._rooms)
        with writing(self.root):
            if self.root.exists() and not self.root.is_dir():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            self._room.__enter__()
        self.owned.half = self._room.path
        return self

    def __exit__(self, *_: object) -> None:
        if self._room is not None:
            self._room.close()
            self._room = self.owned.half = None

    @property
    def cases(self) -> Path:
        """The folder of the case folders."""
        return self.root / "cases"

    @property
    def room(self) -> Path:
        """A private folder on the results' file system, which ends with this context.

        Raises
        ------
        RuntimeError : the context is not entered.
        """
        if self._room is None:
            raise RuntimeError("a store that is not open")
        return self._room.path

    def case_folder(self, case_id: str) -> Path:
        """The folder of one case."""
        return self.cases / case_id

    def lock(self) -> AbstractContextManager[None]:
        """Alone among the processes that fill this folder; may not be nested."""
        return self.owned.lock()

    def open(
        self, settings: dict[str, Any], *, overwrite: bool, case_ids: Iterable[str] = (), part: str = ""
    ) -> None:
        """Make the folder ready for a run of these settings.

        Parameters
        ----------
        case_ids : the cases that this call will write.
        part : name of the part that this call is of a run; empty where it is the whole of it. With
            `overwrite` the results of this part alone go.

        Raises
        ------
        OutputError : nothing can be written there.
        UsageError : a file of the user's is in the way, or it holds the results of other settings, and
            `overwrite` is not given; or another call is at work there while `overwrite` is.
        """
        names = [case_id for case_id in case_ids if names_a_folder(case_id)]
        make_folder(self.root)
        clear_abandoned(self._rooms)
        self.owned.check(_record_name(part), *(f"{name}.csv" for name in _TABLES))
        self._check_cases(names)
        if overwrite:
            self._clear(names, part)
        for file in self._records():
            self._compare(file, settings)
        make_folder(self.cases)

    def write_run(self, record: dict[str, Any], *, part: str = "") -> None:
        """Write `run.json` (`run_part-K-of-N.json` for one part of a run)."""
        self.owned.write_json(self.root / _record_name(part), record)

    def finished(self, case_id: str, identity: str) -> CaseResult | None:
        """The result of an earlier call, where it was made from the same input in the same way.

        A case that failed is tried again, and so is one whose label maps are gone.
        """
        folder = self.case_folder(case_id)
        result = self._read(folder / CASE)
        if result is None or result.identity != identity or result.status == "failed":
            return None
        if result.status != "skipped" and not all((folder / name).is_file() for name in _MAPS):
            return None
        return result

    def write_case(self, result: CaseResult, arrays: CaseArrays | CaseFiles | None) -> None:
        """Put a case's folder in place, whole or not at all.

        Parameters
        ----------
        arrays : its images, or the files that `case_files` has made of them elsewhere.

        Raises
        ------
        OutputError : it cannot be written, or something not ours is in the way; nothing of it is left.
        """
        if not names_a_folder(result.case_id):
            raise OutputError(result.case_id, "it cannot be used as a folder name", "give the input another")
        with self._half_written() as partial:
            make_folder(partial)
            files = case_files(arrays) if isinstance(arrays, CaseArrays) else arrays or {}
            for name, content in files.items():
                write_bytes(partial / name, content)
            write_json(partial / CASE, result.to_json())
            make_folder(self.cases)
            with self.lock():
                self.owned.put(partial, self.case_folder(result.case_id), last=CASE)

    def rewrite_record(self, result: CaseResult) -> None:
        """Write a case's record again, its images left as they are.

        Raises
        ------
        OutputError : it cannot be written.
        """
        with self.lock():
            self.owned.write_json(self.case_folder(result.case_id) / CASE, result.to_json())

    def results(self, case_ids: Iterable[str]) -> list[CaseResult]:
        """The results of some cases that lie in the folder, by case id in byte order.

        Of a case whose folder could not be written, the record of its run tells the result.
        """
        wanted = set(case_ids)
        found = {r.case_id: r for i in wanted if (r := self._read(self.case_folder(i) / CASE)) is not None}
        for file in self._record_files():
            for content in (read_json(file) or {}).get("unwritten", []):
                result = _result_of(content)
                if result is not None and result.case_id in wanted:
                    found[result.case_id] = result
        return sorted(found.values(), key=_by_id)

    def records(self) -> dict[str, dict[str, Any]]:
        """The records of the runs that lie here by file name; empty where one cannot be read."""
        return {file.name: read_json(file) or {} for file in self._record_files()}

    def files(self, case_id: str) -> CaseFiles:
        """Content of the files of a case's images.

        Raises
        ------
        InputError : one cannot be read.
        """
        folder, content = self.case_folder(case_id), {}
        for file in sorted(path for name in (*_MAPS, *_KEPT) if (path := folder / name).is_file()):
            with reading(file, "run the case again"):
                content[file.name] = file.read_bytes()
        return content

    def told(self) -> tuple[list[CaseResult], bool]:
        """The results of all cases that the records here tell of, and whether every run came to its end.

        Where a run was killed before it could tell, those of all case folders.

        Raises
        ------
        UsageError : no record of a run lies here.
        InputError : a case of the records cannot be read.
        """
        records = list(self.records().values())
        if not records:
            template = "{}: there are no results of a run; name the results folder of aiene run."
            raise UsageError(said(template, file_name(self.root)))
        names = {case["case_id"] for record in records for case in record.get("cases", ())}
        if any("cases" not in record for record in records):
            names |= {folder.name for folder in self.cases.glob("*") if (folder / CASE).is_file()}
        results = self.results(names)
        gone = sorted(names - {result.case_id for result in results})
        if gone:
            raise InputError(self.case_folder(gone[0]), "its case.json cannot be read", "run the case again")
        parts = max(record.get("selection", {}).get("num_parts", 1) for record in records)
        ended = [record for record in records if record.get("status") == "finished"]
        return results, len(ended) == len(records) and len(records) >= parts

    def write_tables(
        self,
        results: list[CaseResult],
        *,
        axes: bool,
        model: str,
        rule: CountingRule,
        now: datetime | None,
        parquet: bool = False,
    ) -> dict[str, Path]:
        """Write the four tables; the published one only where it has a row.

        Parameters
        ----------
        now : the time in the name of the published table; None leaves that out.
        parquet : write `cases`, `nodes` and `patients` as Parquet beside the CSV, too.

        Returns
        -------
        Path of each table by name: `cases`, `nodes`, `patients`, `prediction`.
        """
        made = {
            "cases": tables.cases_table(sorted(results, key=_by_id)),
            "nodes": tables.nodes_table(results, axes=axes, rule=rule),
            "patients": tables.patients_table(results, model=model, rule=rule),
        }
        paths = {name: self.root / f"{name}.csv" for name in made}
        for name, table in made.items():
            self.owned.write(paths[name], table_bytes(table))
            if parquet:
                self.owned.write(self.root / f"{name}.parquet", tables.parquet_bytes(table))
        published = tables.published_table(results, axes=axes)
        if len(published) and now is not None:
            stamp = now.strftime("%Y%m%d_%H%M%S")
            folder = self.root / "prediction_list" / f"predictions_{stamp}"
            paths["prediction"] = folder / f"prediction_{stamp}.csv"
            self.owned.refuse(paths["prediction"])
            make_folder(folder)
            self.owned.write(paths["prediction"], table_bytes(published))
        return paths

    @property
    def _rooms(self) -> Path:
        return self.owned.marker / "work"

    @contextmanager
    def _half_written(self) -> Iterator[Path]:
        """Where a case lies until it is complete: in our room, or outside the context in one of its own.

        Its name is short, whatever the case's is: a name that fits must stay one that fits.
        """
        with ExitStack() as stack:
            room = self._room
            if room is None:
                with writing(self.root):
                    room = stack.enter_context(Room(self._rooms))
            partial = room.path / f"case-{secrets.token_hex(4)}"
            stack.callback(shutil.rmtree, partial, ignore_errors=True)
            yield partial

    def _records(self) -> list[Path]:
        return [file for file in self._record_files() if self.owned.owns(file)]

    def _record_files(self) -> list[Path]:
        return [file for file in sorted(self.root.glob("run*.json")) if _RECORD.fullmatch(file.name)]

    def _compare(self, file: Path, settings: dict[str, Any]) -> None:
        before = (read_json(file) or {}).get("settings")
        if not isinstance(before, dict) or before == settings:
            return
        changed = sorted(k for k in before.keys() | settings.keys() if before.get(k) != settings.get(k))
        raise UsageError(
            said(
                "{} holds results of other settings (different: {}); "
                "choose another folder with -o, or replace them with --overwrite.",
                file_name(self.root),
                joined(", ", map(ours, changed)),
            )
        )

    def _check_cases(self, case_ids: Iterable[str]) -> None:
        """Refuse to begin where something that is not ours lies in the place of a case."""
        if self.cases.is_symlink() or (os.path.lexists(self.cases) and not self.cases.is_dir()):
            self.owned.check(self.cases.name)
        for case_id in case_ids:
            folder = self.case_folder(case_id)
            if not os.path.lexists(folder):
                continue
            name = folder.relative_to(self.root).as_posix()
            self.owned.check(*(f"{name}/{file}" for file in (CASE, *_MAPS, *_KEPT)))
            if not folder.is_dir() or (any(folder.iterdir()) and not self.owned.knows(folder)):
                self.owned.check(name)

    def _clear(self, case_ids: Iterable[str], part: str) -> None:
        """Take away what runs (or this part of one) have left here, and nothing else."""
        if part:
            self.owned.remove(self.root / _record_name(part))
            for case_id in case_ids:
                self.owned.clear(self.case_folder(case_id))
            return
        if others_at_work(self._rooms, self._room):
            raise UsageError(
                said(
                    "another aiene run is active in {}; wait until it has finished before "
                    "you use --overwrite.",
                    file_name(self.root),
                )
            )
        for file in (*self._records(), *(self.root / name for name in _FILES)):
            self.owned.remove(file)
        for folder in (self.cases, self.root / "prediction_list", *self.root.glob(f"{RECOUNTED}*")):
            self.owned.clear(folder)

    def _read(self, file: Path) -> CaseResult | None:
        content = read_json(file)
        return None if content is None else _result_of(content)


_TABLES = ("cases", "nodes", "patients")
_FILES = (
    *(f"{name}.{kind}" for name in _TABLES for kind in ("csv", "parquet")),
    "export.csv",
    "export.json",
    "report.html",
)
_MAPS = ("labels.nii.gz", "nodes.nii.gz")
_KEPT = ("prepared.nii.gz", "transform.tfm")
_RECORD = re.compile(r"run(_part-\d+-of-\d+)?\.json")


def names_a_folder(case_id: str) -> bool:
    """Whether an id can be the name of one folder, and of no other."""
    return case_id not in ("", ".", "..") and not set(case_id) & set("/\\\0")


def _record_name(part: str) -> str:
    return f"run_{part}.json" if part else RUN


def _by_id(result: CaseResult) -> bytes:
    return result.case_id.encode("utf-8", "surrogateescape")


def _result_of(content: dict[str, Any]) -> CaseResult | None:
    try:
        return CaseResult.from_json(content)
    except (KeyError, TypeError, ValueError):
        return None


def case_files(arrays: CaseArrays) -> CaseFiles:
    """The files of a case's images, by name."""
    files = {"labels.nii.gz": nifti_bytes(arrays.labels), "nodes.nii.gz": nifti_bytes(arrays.nodes)}
    if arrays.prepared is not None:
        files["prepared.nii.gz"] = nifti_bytes(arrays.prepared)
    if arrays.to_native is not None:
        files["transform.tfm"] = transform_text(arrays.to_native).encode()
    return files


def transform_text(transform: RigidTransform) -> str:
    """The transform in the text form that ITK's readers take."""
    rotation = [repr(float(v)) for row in transform.rotation for v in row]
    translation = [repr(float(v)) for v in transform.translation]
    lines = (
        "#Insight Transform File V1.0",
        "#Transform 0",
        "Transform: AffineTransform_double_3_3",
        f"Parameters: {' '.join(rotation + translation)}",
        "FixedParameters: 0 0 0",
    )
    return "".join(f"{line}\n" for line in lines)
