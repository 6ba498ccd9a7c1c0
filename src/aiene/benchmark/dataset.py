"""The data of a benchmark: images and masks paired by case id, label maps, and the ground truth of each case.

Masks are read from files in the benchmark's own label values, onto the CT's grid. The ground truth of a case
is checked against its CT; its nodes are named as in a run.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from aiene.benchmark.config import GTVN, GTVP, LABEL_VALUES, BenchmarkConfig, LabelChoice
from aiene.benchmark.ene_labels import EneRow, EneTable, match_rows
from aiene.benchmark.metrics.nodes import components, node_infos
from aiene.benchmark.records import Pair, Pairing, Refused, TruthNode, TruthRecord
from aiene.errors import InputError, UsageError
from aiene.geometry.grid import Grid, Volume, triple
from aiene.geometry.resample import pull_labels
from aiene.hashing import digest
from aiene.ingest.case import Case
from aiene.ingest.discovery import walk
from aiene.ingest.find import find_cases
from aiene.ingest.fingerprint import image_sha256, in_order_of_place, labels_sha256, nodes_sha256
from aiene.ingest.formats import claimed_volume, volume_endings
from aiene.ingest.masks import read_mask
from aiene.ingest.read import read_case
from aiene.ingest.readers.nifti import read_nifti

FOREIGN = (".mha", ".mhd", ".img", ".hdr", ".mgz", ".npz", ".npy", ".zip")
"""Endings of volumes that are refused by name, not passed over, as far as the table of formats has none."""
IMAGE_WORDS = frozenset({"ct", "image", "img", "scan", "volume"})
MASK_WORDS = frozenset(
    {"mask", "masks", "seg", "segmentation", "segmentations", "label", "labels", "gt", "gtv", "truth"}
    | {"groundtruth", "annotation", "pred", "prediction", "predictions"}
)
OTHER_WORDS = frozenset({"nodes", "prepared", "instances"})
"""What an earlier `aiene run` leaves beside its label maps; never an image or a mask itself."""

Role = Literal["image", "mask"]
_CHANNEL = re.compile(r"^(.*)_(\d{4})$")
_WORD = re.compile(r"^(.*?)[._\- ]+([A-Za-z]+)$")


class Named(NamedTuple):
    """What a file's name says.

    Parameters
    ----------
    case_id : the name without its ending, channel and words such as ct or seg; the folder's name where
        nothing else is left.
    channel : the number of `_0000`, None without one.
    role : what a word in the name says the file is.
    """

    case_id: str
    channel: int | None
    role: Literal["image", "mask", "other"] | None


@dataclass(frozen=True)
class Listing:
    """The files of one role in a folder, by case id.

    Parameters
    ----------
    files : exactly one file a case.
    refused : cases with several, and files of formats that are not read.
    notes : what was skipped.
    """

    files: dict[str, Path]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]


def named(path: Path, root: Path) -> Named:
    """The case that a file belongs to, by its name and place.

    `p1_0000.nii.gz`, `p1.nii.gz`, `p1__CT.nii.gz`, `p1_seg.nrrd`, `p1.seg.nrrd` and `p1/ct.nii.gz` are all
    of the case `p1`.
    """
    endings = (*volume_endings(), *FOREIGN)
    ending = next((e for e in endings if path.name.lower().endswith(e)), "")
    stem = path.name[: len(path.name) - len(ending)] or path.name
    channel = None
    numbered = _CHANNEL.match(stem)
    if numbered and numbered[1]:
        stem, channel = numbered[1], int(numbered[2])
    role = _role(stem)
    if role is not None:
        stem = path.parent.name if path.parent != root else stem
        return Named(stem, channel, role)
    while (worded := _WORD.match(stem)) and worded[1] and (said := _role(worded[2])) is not None:
        stem, role = worded[1], role or said
    return Named(stem.rstrip("._- ") or stem, channel, role)


def list_files(folder: Path, role: Role, *, shared: bool = False, without: Path | None = None) -> Listing:
    """The images or masks below a folder, at any depth.

    Where a case has files whose names say image and others that say mask, each role takes its own. Of
    numbered channels only `_0000` is an image.

    Parameters
    ----------
    shared : the folder holds files of both roles, so a file that says the other one is never taken.
    without : a folder below that is passed over.

    Raises
    ------
    InputError : the folder is not there or cannot be opened.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder", f"name the folder of the {role}s")
    found = walk(folder)
    notes = [*found.notes, *(f"{closed.name}: it cannot be opened" for closed in found.closed)]
    files: dict[str, list[tuple[Path, Named]]] = defaultdict(list)
    nameless, refused = list[Refused](), list[Refused]()
    for path in (file for file in found.files if without is None or not file.is_relative_to(without)):
        lower = path.name.lower()
        if not _is_text(str(path.relative_to(folder))):
            nameless.append(_no_text(named(path, folder).case_id))
        elif path.name.endswith(volume_endings()):
            name = named(path, folder)
            if name.channel:
                notes.append(f"{path.name}: an additional channel, ignored")
            else:
                files[name.case_id].append((path, name))
        elif lower.endswith((*volume_endings(), *FOREIGN)):
            known = lower.endswith(volume_endings())
            what = "write its extension in lower case" if known else "convert it to NIfTI"
            reason = f"{path.name}: this kind of file is not supported; {what}."
            refused.append(Refused(named(path, folder).case_id, reason))
    single: dict[str, Path] = {}
    for case_id, several in sorted(files.items()):
        chosen = _of_role(several, role, shared)
        if len(chosen) == 1:
            single[case_id] = chosen[0]
        elif chosen:
            names = " and ".join(path.relative_to(folder).as_posix() for path in sorted(chosen)[:3])
            refused.append(Refused(case_id, f"{len(chosen)} {role}s of this case ({names}); keep one."))
    return Listing(single, (*nameless, *refused), tuple(notes))


def find_pairs(image_dir: Path, seg_dir: Path) -> Pairing:
    """Every case that has one image and one mask, and a list of all that have not.

    `image_dir` may also hold DICOM, as `aiene run` reads it, alone or beside files that are volumes.

    Raises
    ------
    InputError : a folder is not there, or holds no image.
    """
    first, second = image_dir.resolve(), seg_dir.resolve()
    shared = first.is_relative_to(second) or second.is_relative_to(first)
    images, image_refusals, image_notes = _images(image_dir, shared)
    masks = list_files(seg_dir, "mask", shared=shared)
    refused = {item.case_id: item for item in (*masks.refused, *image_refusals)}
    both = sorted((images.keys() & masks.files.keys()) - refused.keys(), key=str.encode)
    return Pairing(
        pairs=tuple(Pair(case, images[case], masks.files[case]) for case in both),
        images_without_mask=_alone(images, masks.files, refused),
        masks_without_image=_alone(masks.files, images, refused),
        refused=tuple(refused[case] for case in sorted(refused, key=str.encode)),
        notes=(*image_notes, *masks.notes),
    )


def _alone(these: dict[str, Case] | dict[str, Path], those: object, refused: object) -> tuple[str, ...]:
    return tuple(sorted((c for c in these if c not in those and c not in refused), key=str.encode))  # type: ignore[operator]


def _images(folder: Path, shared: bool) -> tuple[dict[str, Case], list[Refused], tuple[str, ...]]:
    listing = list_files(folder, "image", shared=shared)
    cases = {name: Case(name, claimed_volume(file).name, (file,)) for name, file in listing.files.items()}
    refused, notes = list(listing.refused), listing.notes
    try:
        found, told = find_cases(folder, format="dicom")
    except InputError:
        if cases or refused:
            return cases, refused, notes  # no DICOM beside the volumes
        raise
    for case in found:
        if not _is_text(case.case_id):
            refused.append(_no_text(case.case_id))
        elif not isinstance(case, Case):
            refused.append(Refused(case.case_id, case.reason))
        elif case.case_id in cases:
            twice = f"2 images of this case ({cases.pop(case.case_id).files[0].name} and DICOM); keep one."
            refused.append(Refused(case.case_id, twice))
        else:
            cases[case.case_id] = case
    return cases, refused, (*notes, *(note for note in told if "left out" not in note or not listing.files))


def _is_text(name: str) -> bool:
    """Whether a file's name is UTF-8; Python keeps other bytes as surrogates, which no table can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_text(case_id: str) -> Refused:
    escaped = os.fsencode(case_id).decode("utf-8", "backslashreplace")
    return Refused(escaped, "its name or a folder's is not UTF-8; rename it.")


def _role(word: str) -> Literal["image", "mask", "other"] | None:
    lower = word.lower()
    if lower in IMAGE_WORDS:
        return "image"
    if lower in MASK_WORDS:
        return "mask"
    return "other" if lower in OTHER_WORDS else None


def _of_role(files: Sequence[tuple[Path, Named]], role: Role, shared: bool) -> list[Path]:
    """The files that say they are of a role; else those that say nothing; else, in a folder of its own, all.

    What an earlier run left beside its label maps is never taken.
    """
    exact = [path for path, name in files if name.role == role]
    silent = [path for path, name in files if name.role is None]
    return exact or silent or [path for path, name in files if name.role != "other" and not shared]


# Label maps


def read_labels(path: Path, like: Grid, *, resample: bool) -> Volume:
    """A label map on the CT's grid, with the values of its file.

    Parameters
    ----------
    path : a file of a format whose files are a volume each.
    like : the CT's grid.
    resample : take a map that lies on another grid, by nearest neighbour; 0 outside.

    Returns
    -------
    uint8 on `like`.

    Raises
    ------
    InputError : it cannot be read, its values are not labels from 0 to 255, or it lies elsewhere than the CT
        and `resample` is not asked for, or does not meet the CT at all.
    """
    if not resample:
        try:
            return read_mask(path, like=like)
        except InputError as error:
            if error.remedy != "resample the mask onto the CT's grid":
                raise
            raise InputError(path, error.problem, f"{error.remedy}, or use --resample") from error
    labels = read_mask(path, like=_own_grid(path))
    try:
        return read_mask(path, like=like)
    except InputError:
        moved = pull_labels(labels, like)
    if labels.array.any() and not moved.array.any():
        raise InputError(path, "none of its labelled voxels is in the CT", "give the mask of this CT")
    return moved


def in_our_values(path: Path, labels: Volume, choice: LabelChoice) -> Volume:
    """The map with 1 for GTVp and 2 for GTVn.

    Raises
    ------
    InputError : a value that the choice does not name.
    """
    known = {*choice.GTVp, *choice.GTVn, *choice.ignore, 0}
    found = np.flatnonzero(np.bincount(labels.array.ravel(), minlength=1))
    strange = [str(value) for value in found if int(value) not in known]
    if strange:
        values = f"value{'s' * (len(strange) > 1)} {', '.join(strange[:8])}"
        remedy = "explain them under `labels` in the configuration (GTVp, GTVn or ignore)"
        raise InputError(path, f"label {values} unknown", remedy)
    table = np.zeros(max(256, max(known) + 1), dtype=np.uint8)
    table[list(choice.GTVp)] = LABEL_VALUES[GTVP]
    table[list(choice.GTVn)] = LABEL_VALUES[GTVN]
    return labels.with_array(table[labels.array])


def by_volume(node_map: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.uint16], dict[int, int]]:
    """A node map whose values are 1, 2, ... in order of falling volume, and the old value of each new one.

    Of equal volumes that one is first whose first voxel is, whatever their values were.
    """
    sizes = np.bincount(node_map.ravel())
    sizes[0] = 0
    first = {value: place for place, value in enumerate(in_order_of_place(node_map)[1])}
    old = sorted(np.flatnonzero(sizes).tolist(), key=lambda value: (-int(sizes[value]), first[value]))
    table = np.zeros(len(sizes), dtype=np.uint16)
    for new, value in enumerate(old, start=1):
        table[value] = new
    return table[node_map], dict(enumerate(old, start=1))


def _own_grid(path: Path) -> Grid:
    format_ = claimed_volume(path)
    try:
        return format_.read(Case(path.name, format_.name, (path,))).volume.grid
    except OSError as error:
        raise InputError(path, f"it cannot be read ({error.strerror})", "check its permissions") from error


# Ground truth


@dataclass(frozen=True, eq=False)
class Truth:
    """The ground truth of a case in memory.

    Parameters
    ----------
    labels : uint8 on the CT's grid, 1 GTVp, 2 GTVn.
    nodes : uint16 there, value k for `GTVn_k` in order of falling volume.
    """

    record: TruthRecord
    labels: Volume
    nodes: Volume


def read_truth_of(
    pair: Pair, config: BenchmarkConfig, node_map_file: Path | None, rows: tuple[EneRow, ...], patient: str
) -> Truth:
    """Labels, nodes and ENE of a case.

    Parameters
    ----------
    node_map_file : the case's map of single nodes, where the user gives one.
    rows : of the ENE table, of this case.

    Raises
    ------
    InputError : image or mask cannot be used, or do not belong together.
    """
    ct = read_case(pair.image)
    grid = ct.volume.grid
    raw = read_labels(pair.mask, grid, resample=config.resample)
    labels = in_our_values(pair.mask, raw, config.labels)
    inside = labels.array == LABEL_VALUES[GTVN]
    warnings: list[str] = []
    if node_map_file is not None:
        own = read_labels(node_map_file, grid, resample=config.resample).array
        parts: npt.NDArray[np.integer[Any]] = np.where(inside, own, 0).astype(np.int64)
        warnings += disagreement(labels, labels.with_array(own))
    elif config.nodes == "values":
        parts = np.where(inside, raw.array, 0).astype(np.int64)
    else:
        parts = components(inside).astype(np.int64)
        if config.node_maps is not None and inside.any():
            warnings.append("no map of its nodes, so the connected parts of GTVn are used")
    nodes, old_values = by_volume(parts)
    by_old_value = node_map_file is not None or config.nodes == "values"
    numbers = {old: new for new, old in old_values.items()} if by_old_value else {n: n for n in old_values}
    node_map = Volume(nodes, grid)
    matched = match_rows(rows, node_map, numbers)
    found = tuple(
        replace(node, ene=None if (ene := matched.values.get(node.value)) is None else int(ene))
        for node in truth_nodes(node_map)
    )
    said = {node.value: node.ene for node in found}
    content = [image_sha256(ct.volume), labels_sha256(labels), nodes_sha256(node_map, said)]
    record = TruthRecord(
        case_id=pair.case_id,
        patient_id=patient,
        status="ok",
        content_sha256=digest(content),
        voxel_ml=grid.voxel_volume_mm3 / 1000,
        diagonal_mm=diagonal_mm(grid),
        image_ml=float(np.prod(grid.size)) * grid.voxel_volume_mm3 / 1000,
        voxels={name: int(np.count_nonzero(labels.array == v)) for name, v in LABEL_VALUES.items()},
        nodes=found,
        ene_matched=len(rows) - len(matched.unmatched),
        ene_unmatched=tuple((row.row, row.reason) for row in matched.unmatched),
        warnings=tuple(warnings),
    )
    return Truth(record, labels, node_map)


def disagreement(labels: Volume, nodes: Volume) -> list[str]:
    """What a map of nodes lacks of GTVn, or has beyond it; nodes count only within GTVn.

    Parameters
    ----------
    labels : in the benchmark's own values. nodes : on the same grid, before it is cut.
    """
    inside, drawn = labels.array == LABEL_VALUES[GTVN], nodes.array != 0
    bare, beyond = int((inside & ~drawn).sum()), int((drawn & ~inside).sum())
    warnings = []
    if bare:
        warnings.append(f"{bare} of {int(inside.sum())} voxels of GTVn are in no node of its node map")
    if beyond:
        warnings.append(f"{beyond} voxels of its node map lie outside GTVn and do not count")
    return warnings


def truth_nodes(node_map: Volume) -> list[TruthNode]:
    """Each node's name, volume, place and short axis."""
    result = []
    short = {info.number: info.short_axis_mm for info in node_infos(node_map.array, node_map.grid.spacing)}
    voxel_ml = node_map.grid.voxel_volume_mm3 / 1000
    for value, place in centroids(node_map).items():
        count, middle = place
        name, volume = f"GTVn_{value:02d}", count * voxel_ml
        result.append(TruthNode(value, name, volume, triple(middle), short_axis_mm=short[value]))
    return result


def centroids(node_map: Volume) -> dict[int, tuple[int, npt.NDArray[np.float64]]]:
    """Voxels and centroid (LPS mm) of each node of a map, by value."""
    at = np.argwhere(node_map.array)
    values = node_map.array[tuple(at.T)].astype(np.int64)
    counts = np.bincount(values)
    sums = np.stack([np.bincount(values, weights=at[:, axis]) for axis in range(3)], axis=1)
    return {
        int(value): (int(counts[value]), node_map.grid.points(sums[value] / counts[value]))
        for value in np.flatnonzero(counts)
    }


def diagonal_mm(grid: Grid) -> float:
    """Between the centres of opposite corner voxels: the largest distance that two voxels can have."""
    return float(np.linalg.norm((np.array(grid.size) - 1) * np.array(grid.spacing)))


def patient_finder(config: BenchmarkConfig, table: EneTable | None) -> Any:
    """A function from case id to patient id.

    Raises
    ------
    UsageError : the pattern is no regular expression.
    """
    listed = {} if table is None else table.patients()
    try:
        pattern = None if config.patient_pattern is None else re.compile(config.patient_pattern)
    except re.error as error:
        raise UsageError(f"patient_pattern: not a regular expression ({error}).") from error

    def patient(case_id: str) -> str:
        if case_id in listed:
            return listed[case_id]
        found = None if pattern is None else pattern.search(case_id)
        if found is None:
            return case_id
        return found[1] if found.lastindex else found[0]

    return patient


def read_kept(file: Path) -> Volume:
    """A map that this module wrote."""
    volume = read_nifti(Case(file.name, "nifti", (file,))).volume
    return volume.with_array(volume.array.astype(np.uint16))
