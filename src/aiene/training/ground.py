"""Everything about the place and the start of a training that can be told before any work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aiene.errors import TrainingDataError, UsageError
from aiene.models.bundle import Bundle
from aiene.results.ownership import refuse_overlap
from aiene.training.base import Ground, begin_with, check_fits, preparation_of
from aiene.training.place import (
    MARKER,
    bundle_at,
    check_claim,
    check_name,
    read_record,
    restore_bundle,
    whole_path,
    work_folder,
)
from aiene.training.records import Pair
from aiene.training.same_ct import Slices, leaks

RECORDS: Final = {"segmenter": "segmenter.json", "classifier": "classifier.json"}
"""What each training notes of its settings in the work folder."""


def ground_of(out: Path, start_from: str | None, inputs: Mapping[str, Path | None]) -> Ground:
    """Check `-o` and `--from` against what lies there and what is read.

    Parameters
    ----------
    out : as given by `-o`.
    start_from : as given by `--from`.
    inputs : what is read, by its option.

    Raises
    ------
    UsageError : something at `-o` is not ours or of another preparation, or it overlaps an input.
    ModelError : a bundle cannot be used.
    """
    out = whole_path(out)
    work = work_folder(out)
    check_name(out)
    for place in (out, work):
        refuse_overlap(place, inputs)
    check_claim(work)
    restore_bundle(out)
    there = bundle_at(out)
    base = begin_with(start_from, there)
    if start_from is not None:
        for place in (out, work):
            refuse_overlap(place, {"--from": base.path})
    check_fits(base, out, _before(there, work))
    return Ground(out, work, base, there)


def _before(there: Bundle | None, work: Path) -> dict[str, str] | None:
    """How the CTs are prepared of the bundle that lies there, or of a training that was begun."""
    if there is not None:
        return preparation_of(there)
    begun = (read_record(work / name).get("preparation") for name in RECORDS.values())
    return next((dict(found) for found in begun if isinstance(found, dict)), None)


def check_record(work: Path, which: str, record: Mapping[str, Any], *, go_on: bool) -> None:
    """Whether what lies in the work folder is of the same training.

    Parameters
    ----------
    which : `segmenter` or `classifier`.
    record : settings of this one.
    go_on : it is to be taken up.

    Raises
    ------
    UsageError : it is of another training, or there is none to take up.
    """
    before = read_record(work / RECORDS[which])
    changed = sorted(k for k in before.keys() | record.keys() if before.get(k) != record.get(k))
    if before and changed:
        raise UsageError(
            f"{work.name} holds a training of other data or settings ({', '.join(changed)} differ); "
            "choose another -o, or remove that folder."
        )
    if go_on and not (work / MARKER).is_file():
        raise UsageError(f"{work.name} holds no training to continue; leave --continue out.")


def refuse_leaks(pairs: list[Pair], slices: Mapping[str, Slices]) -> None:
    """One CT under two case ids of two patients would be used for training and evaluation.

    Raises
    ------
    TrainingDataError : each two cases that show the same CT.
    """
    problems = leaks(slices, {pair.case_id: pair.patient_id for pair in pairs})
    if problems:
        raise TrainingDataError(problems)
