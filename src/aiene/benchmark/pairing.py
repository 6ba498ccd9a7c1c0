"""Images and masks, paired by case id as people name their files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from aiene.errors import InputError
from aiene.ingest import Case, find_cases
from aiene.ingest.walk import walk

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr")
FOREIGN = (".mha", ".mhd", ".img", ".hdr", ".mgz", ".npz", ".npy", ".zip")
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


@dataclass(frozen=True)
class Pair:
    """One case with its ground truth.

    Parameters
    ----------
    case_id : what both files' names have in common.
    image : the CT, found but not read.
    mask : the file of its ground truth.
    """

    case_id: str
    image: Case
    mask: Path


@dataclass(frozen=True)
class Refused:
    """A case that cannot be paired.

    Parameters
    ----------
    reason : one sentence.
    """

    case_id: str
    reason: str


@dataclass(frozen=True)
class Pairing:
    """What two folders hold together.

    Parameters
    ----------
    pairs : by case id in byte order.
    images_without_mask, masks_without_image : case ids that stand alone.
    refused : cases with more than one image or mask, and files that are not read.
    notes : what was passed over.
    """

    pairs: tuple[Pair, ...]
    images_without_mask: tuple[str, ...]
    masks_without_image: tuple[str, ...]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...] = ()


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
    notes : what was passed over.
    """

    files: dict[str, Path]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]


def named(path: Path, root: Path) -> Named:
    """The case that a file belongs to, by its name and place.

    `p1_0000.nii.gz`, `p1.nii.gz`, `p1__CT.nii.gz`, `p1_seg.nrrd`, `p1.seg.nrrd` and `p1/ct.nii.gz` are all
    of the case `p1`.
    """
    stem = _stem(path.name)
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
    refused: list[Refused] = []
    for path in found.files:
        if without is not None and path.is_relative_to(without):
            continue
        lower = path.name.lower()
        if path.name.endswith(ENDINGS):
            name = named(path, folder)
            if name.channel:
                notes.append(f"{path.name}: a further channel, passed over")
            else:
                files[name.case_id].append((path, name))
        elif lower.endswith((*ENDINGS, *FOREIGN)):
            what = "write its ending in small letters" if lower.endswith(ENDINGS) else "convert it to NIfTI"
            reason = f"{path.name}: this kind of file is not read; {what}."
            refused.append(Refused(named(path, folder).case_id, reason))
    single: dict[str, Path] = {}
    for case_id, several in sorted(files.items()):
        chosen = _of_role(several, role, shared)
        if len(chosen) == 1:
            single[case_id] = chosen[0]
        elif chosen:
            refused.append(Refused(case_id, _several(chosen, folder, role)))
    return Listing(single, tuple(refused), tuple(notes))


def find_pairs(image_dir: Path, seg_dir: Path) -> Pairing:
    """Every case that has one image and one mask, and a list of all that have not.

    `image_dir` may also hold DICOM, as `aiene run` reads it: where it has no NIfTI or NRRD file.

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
    if listing.files or listing.refused:
        cases = {case_id: _case(case_id, path) for case_id, path in listing.files.items()}
        return cases, list(listing.refused), listing.notes
    found, notes = find_cases(folder, format="dicom")
    dicom = {case.case_id: case for case in found if isinstance(case, Case)}
    return dicom, [Refused(c.case_id, c.reason) for c in found if not isinstance(c, Case)], tuple(notes)


def _case(case_id: str, path: Path) -> Case:
    return Case(case_id, "nifti" if ".nii" in path.name.lower() else "nrrd", (path,))


def _stem(name: str) -> str:
    lower = name.lower()
    ending = next((e for e in (*ENDINGS, *FOREIGN) if lower.endswith(e)), "")
    return name[: len(name) - len(ending)] or name


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


def _several(paths: Sequence[Path], folder: Path, role: Role) -> str:
    names = " and ".join(path.relative_to(folder).as_posix() for path in sorted(paths)[:3])
    return f"{len(paths)} {role}s of this case ({names}); keep one."
