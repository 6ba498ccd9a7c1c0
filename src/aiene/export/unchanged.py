"""Whether a source series is still what a run has seen: by its files' bytes, else by its images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiene.errors import InputError
from aiene.ingest.case import Case
from aiene.ingest.dicom.header import Frame
from aiene.ingest.dicom.stack import Layout
from aiene.ingest.fingerprint import content_sha256, voxels_sha256
from aiene.ingest.read import read_case

Places = tuple[tuple[Frame, ...], ...]


def unchanged(stack: Layout, given: dict[str, Any]) -> tuple[Layout, tuple[str, ...]] | None:
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
            return copy, (
                "the source files are not those of the run byte by byte; their images are the same, voxel by "
                "voxel",
            )
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
