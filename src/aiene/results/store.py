"""The output folder of a run: case folders that are whole or absent, and the tables over them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from aiene.errors import UsageError
from aiene.geometry import RigidTransform, Volume
from aiene.results import tables
from aiene.results.atomic import make_folder, replace_folder, write_bytes, write_json, writing
from aiene.results.images import write_nifti
from aiene.results.records import CaseResult

RUN = "run.json"
CASE = "case.json"


@dataclass(frozen=True, eq=False)
class CaseArrays:
    """The images of one case.

    Parameters
    ----------
    labels : uint8 label map (GTVp, GTVn) on the native CT's grid.
    nodes : uint16 node map there, value k for `GTVn_k`.
    prepared : the networks' input in its true place on the patient, where it is to be kept.
    to_native : the rigid transform from the template's space to the native CT's, kept with it.
    """

    labels: Volume
    nodes: Volume
    prepared: Volume | None = None
    to_native: RigidTransform | None = None


class RunStore:
    """One output folder.

    Parameters
    ----------
    root : the folder; made by `open`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def cases(self) -> Path:
        """The folder of the case folders."""
        return self.root / "cases"

    def case_folder(self, case_id: str) -> Path:
        """The folder of one case."""
        return self.cases / case_id

    def open(self, settings: dict[str, Any], *, overwrite: bool) -> None:
        """Make the folder ready for a run of these settings.

        Raises
        ------
        OutputError : nothing can be written there.
        UsageError : it holds the results of other settings, and `overwrite` is not given.
        """
        make_folder(self.cases)
        if overwrite:
            self._clear()
        before = self._settings()
        if before is not None and before != settings:
            changed = sorted(k for k in before.keys() | settings.keys() if before.get(k) != settings.get(k))
            raise UsageError(
                f"{self.root.name} holds results of other settings ({', '.join(changed)} differ); "
                "choose another folder with -o, or replace them with --overwrite."
            )
        for partial in self.cases.glob(".*.partial"):
            shutil.rmtree(partial, ignore_errors=True)

    def write_run(self, record: dict[str, Any], *, part: str = "") -> None:
        """Write `run.json` (`run_part-K-of-N.json` for one part of a run)."""
        write_json(self.root / (f"run_{part}.json" if part else RUN), record)

    def finished(self, case_id: str, identity: str) -> CaseResult | None:
        """The result of an earlier call, where it was made from the same input in the same way.

        A case that failed is tried again.
        """
        result = self._read(self.case_folder(case_id) / CASE)
        if result is None or result.identity != identity or result.status == "failed":
            return None
        return result

    def write_case(self, result: CaseResult, arrays: CaseArrays | None) -> None:
        """Put a case's folder in place, whole or not at all.

        Raises
        ------
        OutputError : it cannot be written; nothing of it is left.
        """
        partial = self.cases / f".{result.case_id}.partial"
        try:
            make_folder(partial)
            if arrays is not None:
                _write_arrays(partial, arrays)
            write_json(partial / CASE, result.to_json())
            replace_folder(partial, self.case_folder(result.case_id))
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def results(self, case_ids: Iterable[str]) -> list[CaseResult]:
        """The results of some cases that lie in the folder, by case id in byte order."""
        found = (self._read(self.case_folder(case_id) / CASE) for case_id in case_ids)
        return sorted((r for r in found if r is not None), key=lambda r: r.case_id.encode())

    def write_tables(
        self, results: list[CaseResult], *, axes: bool, model: str, threshold: float, now: datetime
    ) -> dict[str, Path]:
        """Write the four tables; the published one only where it has a row.

        Returns
        -------
        Path of each table by name: `cases`, `nodes`, `patients`, `prediction`.
        """
        made = {
            "cases": tables.cases_table(results),
            "nodes": tables.nodes_table(results, axes=axes),
            "patients": tables.patients_table(results, model=model, threshold=threshold),
        }
        paths = {name: self.root / f"{name}.csv" for name in made}
        for name, table in made.items():
            write_bytes(paths[name], tables.csv_bytes(table))
        published = tables.published_table(results, axes=axes)
        if len(published):
            paths["prediction"] = self._prediction_path(now)
            make_folder(paths["prediction"].parent)
            write_bytes(paths["prediction"], tables.csv_bytes(published))
        return paths

    def _prediction_path(self, now: datetime) -> Path:
        stamp = now.strftime("%Y%m%d_%H%M%S")
        return self.root / "prediction_list" / f"predictions_{stamp}" / f"prediction_{stamp}.csv"

    def _settings(self) -> dict[str, Any] | None:
        """Settings of the run that lies here."""
        for file in sorted(self.root.glob("run*.json")):
            content = _json_of(file)
            if content is not None and isinstance(content.get("settings"), dict):
                return dict(content["settings"])
        return None

    def _clear(self) -> None:
        """Take away what a run leaves, and nothing else."""
        with writing(self.root):
            shutil.rmtree(self.cases)
            self.cases.mkdir()
            for file in [*self.root.glob("run*.json"), *(self.root / f"{n}.csv" for n in _TABLES)]:
                file.unlink(missing_ok=True)
            shutil.rmtree(self.root / "prediction_list", ignore_errors=True)

    @staticmethod
    def _read(file: Path) -> CaseResult | None:
        content = _json_of(file)
        if content is None:
            return None
        try:
            return CaseResult.from_json(content)
        except (KeyError, TypeError, ValueError):
            return None


_TABLES = ("cases", "nodes", "patients")


def _json_of(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_arrays(folder: Path, arrays: CaseArrays) -> None:
    write_nifti(arrays.labels, folder / "labels.nii.gz")
    write_nifti(arrays.nodes, folder / "nodes.nii.gz")
    if arrays.prepared is not None:
        write_nifti(arrays.prepared, folder / "prepared.nii.gz")
    if arrays.to_native is not None:
        write_bytes(folder / "transform.tfm", transform_text(arrays.to_native).encode())


def transform_text(transform: RigidTransform) -> str:
    """The transform in the text form that ITK's readers take."""
    rotation = [repr(float(v)) for row in transform.rotation for v in row]
    translation = [repr(float(v)) for v in transform.translation]
    return (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {' '.join(rotation + translation)}\nFixedParameters: 0 0 0\n"
    )
