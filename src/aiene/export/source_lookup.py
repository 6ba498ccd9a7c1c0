"""What a run was made from: its CTs found again, and the source series of each, checked to be unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from pydicom.dataset import Dataset

from aiene.errors import AieneError, CaseError, InputError, Said, ours, said
from aiene.export.case import SourceSeries, on_source
from aiene.geometry.grid import Grid, Volume, corner_indices
from aiene.ingest.case import Case
from aiene.ingest.dicom.header import Frame, quiet, scan, whole_header
from aiene.ingest.dicom.pixels import read_stack
from aiene.ingest.dicom.stack import Layout, group, lay_out
from aiene.ingest.find import find_cases, source_files
from aiene.ingest.fingerprint import content_sha256, voxels_sha256
from aiene.ingest.formats import formats
from aiene.ingest.lattice import AIR_HU, Matrix
from aiene.ingest.read import opened, read_case
from aiene.results.records import CaseResult

if TYPE_CHECKING:
    from aiene.finished_runs import RunRecord

MATCH_VOXELS: Final = 0.1
"""A series is what a CT was made from where every corner voxel agrees to this share of a voxel."""

_SAME_MM: Final = 1e-3
_SAME_HU: Final = 1.0
_SHARE_ALIKE: Final = 0.99
_SOURCE: Final = "--source-dicom"
_PLANE: Final = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_GROUPS: Final = frozenset({0x52009229, 0x52009230})
"""Tags of the shared and per-frame functional groups."""

Places = tuple[tuple[Frame, ...], ...]


@dataclass(frozen=True)
class SourceIndex:
    """The CT slices below a folder; headers only.

    Parameters
    ----------
    folder : named in messages.
    stacks : every group of slices that makes a sound stack.
    uids : SeriesInstanceUID of everything that was found, sound or not.
    """

    folder: Path
    stacks: tuple[Layout, ...]
    uids: frozenset[str]

    @classmethod
    def of(cls, folder: Path, files: Iterable[Path]) -> SourceIndex:
        """Read the headers of every DICOM file among some files that were found below a folder."""
        frames = scan(file for file in files if _may_be_dicom(file)).frames
        return cls(folder, tuple(_stacks(folder, frames)), frozenset(f.series_uid for f in frames))

    def find(self, facts: dict[str, Any], ct: Volume | None = None) -> SourceSeries:
        """The source series of a case.

        Parameters
        ----------
        facts : the case's `facts` in `case.json`.
        ct : the CT that was run, where it was no DICOM and is still there: a series on its grid must also
            show the same HU.

        Raises
        ------
        InputError : it is not there, or has changed since the run; the input was no DICOM and no series below
            the folder lies on its grid, or several do.
        """
        given = facts["input"]
        return self._by_uid(given) if given["kind"] == "dicom" else self._by_geometry(facts, ct)

    def _by_uid(self, given: dict[str, Any]) -> SourceSeries:
        uid, hidden = given["series_uid"], given.get("pseudonymised", False)
        if not hidden and uid not in self.uids:
            problem = "the source series of this case no longer exists"
            raise InputError(self.folder, problem, said("name its folder with {}", ours(_SOURCE)))
        affine = np.array(given["lattice"]["index_zyx_to_lps_mm"])
        size = tuple(given["lattice"]["size_zyx"])
        for stack in self.stacks:
            alike = (hidden or stack.places[0][0].series_uid == uid) and stack.size == size
            if alike and np.abs(stack.affine - affine).max() < _SAME_MM:
                same = unchanged(stack, given)
                if same is not None:
                    return _series(*same)
        raise InputError(
            self.folder,
            "no series has the content of this case, whose UIDs were pseudonymised"
            if hidden
            else "the source series of this case has changed since the run",
            "name its folder with --source-dicom, or bring back the files as they were"
            if hidden
            else "run the case again, or bring back the files as they were",
        )

    def _by_geometry(self, facts: dict[str, Any], ct: Volume | None) -> SourceSeries:
        grid = Grid.from_facts(facts["native"])
        fitting = [stack for stack in self.stacks if fits(grid, stack.affine, stack.size)]
        if not fitting:
            raise InputError(
                self.folder,
                said(
                    "none of its {} CT series lies on the grid of the CT that was run (origin, "
                    "spacing, direction and size to {:g} voxel)",
                    len(self.stacks),
                    MATCH_VOXELS,
                ),
                said("name the folder of the series that the CT was made from with {}", ours(_SOURCE)),
            )
        if ct is None:
            why = "its geometry alone, since the CT that was run is gone"
        else:
            why = "its geometry and its voxels"
            fitting = [stack for stack in fitting if shows(stack, ct)]
        if len(fitting) != 1:
            raise self._not_one(len(fitting))
        return _series(fitting[0], (said("the source series was found by {}", ours(why)),))

    def _not_one(self, count: int) -> InputError:
        if count == 0:
            return InputError(
                self.folder,
                "a CT series lies on the grid of the CT that was run but shows other voxels",
                said("name the folder of the series that the CT was made from with {}", ours(_SOURCE)),
            )
        return InputError(
            self.folder,
            said(
                "{} of its CT series lie on the grid of the CT that was run, and it is not "
                "known from which of them it was made",
                count,
            ),
            said("name the folder of that one series with {}", ours(_SOURCE)),
        )


@contextmanager
def source_index(folder: Path) -> Iterator[SourceIndex]:
    """The index of a folder, file, DICOMDIR or zip archive, whose files lie there until the context is left.

    Raises
    ------
    InputError : it is not there.
    """
    if not folder.exists():
        problem = "the source images have been removed since the run"
        raise InputError(folder, problem, said("name their folder with {}", ours(_SOURCE)))
    with source_files(folder) as files:
        yield SourceIndex.of(folder, files)


def fits(grid: Grid, affine: Matrix, size: tuple[int, int, int]) -> bool:
    """Whether a stack holds the same voxels as a grid, its axes in any order and direction.

    Parameters
    ----------
    grid : of the CT that was run.
    affine, size : of the stack, from (slice, row, column, 1) to LPS mm.
    """
    index = np.linalg.inv(grid.affine) @ affine
    turn = np.rint(index[:3, :3])
    if sorted(np.abs(turn).sum(axis=0)) != [1, 1, 1] or np.abs(np.linalg.det(turn)) != 1:
        return False
    if tuple(np.abs(turn).astype(int) @ np.array(size)) != grid.size:
        return False
    corners = corner_indices(size)
    there = corners @ index[:3, :3].T + index[:3, 3]
    exact = corners @ turn.T + np.where(turn.sum(axis=1) < 0, np.array(grid.size) - 1, 0)
    return bool(np.abs(there - exact).max() <= MATCH_VOXELS)


def shows(stack: Layout, ct: Volume) -> bool:
    """Whether a stack on the grid of a CT holds the same HU (to 1 HU at 99 % of the voxels, air clipped)."""
    series = _series(stack, ())
    try:
        here = read_stack(stack.places)
    except InputError:
        return False
    there = on_source(ct, series)
    part = (slice(None), slice(None, None, 3), slice(None, None, 3))
    apart = np.abs(np.maximum(here[part], AIR_HU) - np.maximum(there[part].astype(np.float32), AIR_HU))
    return bool((apart <= _SAME_HU).mean() >= _SHARE_ALIKE)


def _series(stack: Layout, warnings: tuple[Said, ...]) -> SourceSeries:
    frames = [frames[0] for frames in stack.places]
    opened: dict[Path, Dataset] = {}
    return SourceSeries(
        datasets=tuple(_header(frame, opened) for frame in frames),
        affine=stack.affine,
        files=tuple(frame.path for frame in frames),
        frames=tuple(frame.index + 1 if frame.frames > 1 else None for frame in frames),
        warnings=warnings,
    )


def _header(frame: Frame, opened: dict[Path, Dataset]) -> Dataset:
    """The header of a slice; that of a multi-frame file with the frame's own plane at the top level."""
    if frame.path not in opened:
        opened.clear()
        opened[frame.path] = whole_header(frame.path)
    whole = opened[frame.path]
    if not any(tag in whole for tag in _GROUPS):
        return whole
    single = Dataset()
    single.file_meta = whole.file_meta
    single.update({e.tag: e for e in whole.elements() if e.tag not in _GROUPS})
    if frame.position is None or frame.orientation is None or frame.pixel_spacing is None:
        raise InputError(frame.path, "its frames have no position", "export the series again")
    with quiet():
        for keyword, values in zip(
            _PLANE, (frame.position, frame.orientation, frame.pixel_spacing), strict=True
        ):
            setattr(single, keyword, [f"{v:.10g}"[:16] for v in values])
    return single


def _stacks(folder: Path, frames: Sequence[Frame]) -> Iterator[Layout]:
    for found in group(frames):
        try:
            yield lay_out(found, folder)
        except InputError:  # a scout, a part of a series: nothing that a run could have been made from
            continue


def _may_be_dicom(file: Path) -> bool:
    """By its first bytes: with the preamble's mark, or bare from group 0002 or 0008 on."""
    try:
        with file.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00")


def unchanged(stack: Layout, given: dict[str, Any]) -> tuple[Layout, tuple[Said, ...]] | None:
    """The part of a stack that the run was made from, and what to warn of; None where it has changed.

    The same series may lie in the folder several times, compressed anew perhaps: each place then has several
    images of one instance. The files whose bytes the run has seen are taken; where there are none, those
    whose images, decoded and laid in space as a run does it, have the same HU in every voxel.

    Parameters
    ----------
    stack : of the run's series and lattice.
    given : `facts["input"]` of the case.
    """
    copies = [replace(stack, places=places) for places in _copies(stack.places)]
    for copy in copies:
        if content_sha256(_files(copy)) == given["sha256"]:
            return copy, ()
    if given.get("voxels_sha256") is None:  # of a run before 0.1.0
        return None
    for copy in copies:
        if _voxels(copy) == given["voxels_sha256"]:
            told = said(
                "the source files are not those of the run byte by byte; their images are the same, voxel by "
                "voxel"
            )
            return copy, (told,)
    return None


def _copies(places: Places) -> Iterator[Places]:
    """Every image, then each folder's own where it holds a whole stack, then the first of each place."""
    yield places
    folders = sorted({frame.path.parent for frames in places for frame in frames})
    if len(folders) > 1:
        for folder in folders:
            own = tuple(tuple(f for f in frames if f.path.parent == folder) for frames in places)
            if all(own):
                yield own
    if any(len(frames) > 1 for frames in places):
        yield tuple(frames[:1] for frames in places)


def _files(stack: Layout) -> tuple[Path, ...]:
    return tuple(sorted({frame.path for frames in stack.places for frame in frames}))


def _voxels(stack: Layout) -> str | None:
    """The hash of what a run would read of these files; None where it could not."""
    uid = stack.places[0][0].series_uid
    try:
        return voxels_sha256(read_case(Case("source", "dicom", _files(stack), series_uid=uid)).volume)
    except InputError:
        return None


class NeverDicomError(CaseError):
    """The CT of a case was no DICOM, so there is no series that objects could reference."""


class Sources:
    """The source series of the cases of a run; a context, since files of archives lie unpacked until it ends.

    Parameters
    ----------
    run : the run's record.
    folder : where the user says that the series lie; None is the run's input.
    """

    def __init__(self, run: RunRecord, folder: Path | None) -> None:
        self._run, self._folder = run, folder
        self._images = cache(lambda: Images.of_run(run))
        self._index: SourceIndex | AieneError | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def of(self, result: CaseResult) -> SourceSeries:
        """The source series of a case.

        Raises
        ------
        InputError : it is gone, has changed, or cannot be told.
        NeverDicomError : the input was no DICOM, and no folder was named.
        CaseError : the run is pseudonymised, and no folder was named.
        """
        kind = result.facts["input"]["kind"]
        if kind != "dicom" and self._folder is None:
            raise NeverDicomError(
                said(
                    "the CT came from {}, and DICOM objects need the DICOM series that it was made from",
                    _file_of(kind),
                ),
                "name the folder of that series with --source-dicom",
            )
        if self._run.pseudonymised and self._folder is None:
            problem = "a pseudonymised run does not record where its source series are"
            raise CaseError(problem, "name their folder with --source-dicom")
        index = self._index_once()
        if kind == "dicom":
            return index.find(result.facts)
        ct = self._images().ct(result)
        return index.find(result.facts, ct if isinstance(ct, Volume) else None)

    def _index_once(self) -> SourceIndex:
        if self._index is None:
            try:
                self._index = self._open.enter_context(source_index(self._folder or self._run.source))
            except AieneError as error:
                self._index = error
        if isinstance(self._index, AieneError):
            raise self._index
        return self._index


def _file_of(kind: str) -> Said:
    """`a NIfTI file`; of a format that is not known here, its name in the record."""
    known = next((one for one in formats() if one.name == kind), None)
    return ours(kind) if known is None else said("{} {} file", ours(known.article), ours(known.title))


# The CTs of a run found again: by id and content, or by content alone where they were moved.


GONE = (
    "The CT is no longer where the run found it, so its slices cannot be shown; name its folder with "
    "--images."
)
CHANGED = (
    "The CT there is not the one that was run, so its slices are not shown; name the folder of the "
    "right one with --images."
)
HIDDEN = (
    "A pseudonymised run does not record where its CTs are, so no slices can be shown; name their folder "
    "with --images."
)
UNREADABLE = "The CT can no longer be read, so its slices cannot be shown."


class Images:
    """The CTs of the cases of a run.

    Parameters
    ----------
    cases : of the input, or of the folder that the user named.
    by_content : a case of another id is taken too, where its content is the one that was run.
    hidden : the run does not say where its input lies, and no folder was named.
    """

    def __init__(self, cases: Sequence[Case], *, by_content: bool = False, hidden: bool = False) -> None:
        self.cases, self.by_content, self.hidden = tuple(cases), by_content, hidden
        self._by_id = {case.case_id: case for case in cases}
        self._hashes: dict[str, str | None] = {}

    @classmethod
    def of_run(cls, run: RunRecord, folder: Path | None = None) -> Self:
        """The CTs of a run where they were, or in the folder where they lie now."""
        if run.pseudonymised and folder is None:
            return cls((), hidden=True)
        try:
            found, _ = find_cases(folder or run.source, series=run.series, affine=run.affine)
        except AieneError:
            found = []
        return cls([case for case in found if isinstance(case, Case)], by_content=folder is not None)

    def ct(self, result: CaseResult) -> Volume | str:
        """The CT of a case in HU on its native grid, or the sentence that says why it cannot be shown."""
        if self.hidden:
            return HIDDEN
        case = self.case(result)
        if isinstance(case, str):
            return case
        grid = Grid.from_facts(
            result.facts["native"]
        )  # what the run made of a header that contradicts itself
        try:
            volume = read_case(case).volume
        except AieneError:
            return UNREADABLE
        return Volume(volume.array, grid) if volume.grid.size == grid.size else CHANGED

    def case(self, result: CaseResult) -> Case | str:
        """The input of a case: of its id and content, else of its content alone; or why there is none."""
        wanted = result.facts["input"]["sha256"]
        same = self._by_id.get(result.case_id)
        if same is not None and self._sha256(same) == wanted:
            return same
        if self.by_content:
            for case in self.cases:
                if self._sha256(case) == wanted:
                    return case
        return GONE if same is None else CHANGED

    def _sha256(self, case: Case) -> str | None:
        if case.case_id not in self._hashes:
            try:
                with opened(case) as lying_open:
                    self._hashes[case.case_id] = content_sha256(lying_open.files)
            except (AieneError, OSError):
                self._hashes[case.case_id] = None
        return self._hashes[case.case_id]
