"""A synthetic head-and-neck CT with lymph nodes of known truth, also as a series of DICOM files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from aiene.geometry.grid import Grid, Triple, Volume
from aiene.phantom.body import build_anatomy
from aiene.phantom.lesions import WEAKEST_ENE, PlantedNode, Wishes, plant
from aiene.phantom.pose import Pose, draw_pose
from aiene.phantom.render import Scanner, blocks, hard_clearance, points_of, render_slab, scanned

_INTERCEPT = -1024


@dataclass(frozen=True)
class PhantomSettings:
    """What kind of phantom is wanted; everything else comes from the seed.

    Parameters
    ----------
    grid : where the voxels shall lie (any spacing, direction and size); None: an axial stack of `size` and
        `spacing` around the patient, with an origin drawn from the seed.
    size, spacing : voxels and mm along z, y, x where no grid is given.
    nodes : fewest and most planted nodes.
    ene_share : share of nodes with extranodal extension.
    weakest_ene : least strength of its signs, above 0.
    mimic_share : share of the nodes without extension that look a little like it all the same.
    primary_share : share of patients with a primary tumour.
    variation : 0 is the average person lying straight, 1 the usual spread.
    tilt_degrees : spread of the three angles at which patients lie.
    table : a table top under the patient.
    scanner : blur, noise and texture.
    node_seed : plants other nodes into the same person; None: the seed itself.
    """

    grid: Grid | None = None
    size: tuple[int, int, int] = (90, 256, 256)
    spacing: Triple = (3.0, 1.0, 1.0)
    nodes: tuple[int, int] = (1, 6)
    ene_share: float = 0.45
    weakest_ene: float = WEAKEST_ENE
    mimic_share: float = 0.0
    primary_share: float = 0.6
    variation: float = 1.0
    tilt_degrees: float = 4.0
    table: bool = True
    scanner: Scanner = field(default_factory=Scanner)
    node_seed: int | None = None


@dataclass(frozen=True, eq=False)
class Phantom:
    """A CT and the truth about it, all on one grid.

    Parameters
    ----------
    ct : int16 HU.
    labels : uint8, 1 GTVp, 2 GTVn.
    node_map : uint8, number of the planted node.
    nodes : what was planted, in the order of their numbers.
    pose : takes the scan's points to canonical anatomy.
    """

    ct: Volume
    labels: Volume
    node_map: Volume
    nodes: tuple[PlantedNode, ...]
    pose: Pose


def make_phantom(seed: int, settings: PhantomSettings | None = None) -> Phantom:
    """A phantom patient; the same seed and settings give the same bytes.

    Person, lesions and noise have random streams of their own: the same seed on another grid is the same
    person with the same nodes.

    Parameters
    ----------
    seed : which person.
    settings : which kind of phantom and scan; None: the usual ones.
    """
    wanted = settings or PhantomSettings()
    node_seed = seed if wanted.node_seed is None else wanted.node_seed
    grid = wanted.grid or _axial_grid(wanted, np.random.default_rng((seed, 0)))
    person = np.random.default_rng((seed, 1))
    pose = draw_pose(
        person, centre_lps=grid.centre, variation=wanted.variation, tilt_degrees=wanted.tilt_degrees
    )
    anatomy = build_anatomy(person, wanted.variation)
    wishes = Wishes(
        wanted.nodes, wanted.ene_share, wanted.primary_share, wanted.weakest_ene, wanted.mimic_share
    )
    lesions, nodes = plant(
        np.random.default_rng((seed, 2, node_seed)),
        wishes,
        pose,
        lambda points: hard_clearance(anatomy, pose, points),
        anatomy.enhancement,
    )
    hu = np.empty(grid.size, dtype=np.float32)
    labels = np.empty(grid.size, dtype=np.uint8)
    numbers = np.empty(grid.size, dtype=np.uint8)
    voxel_mm = float(min(np.sort(grid.spacing)[:2]))
    for slab in blocks(grid):
        hu[slab], labels[slab], numbers[slab] = render_slab(
            anatomy, pose, lesions, points_of(grid, slab), voxel_mm, table=wanted.table
        )
    ct = scanned(hu, grid, wanted.scanner, np.random.default_rng((seed, 3, node_seed)))
    return Phantom(Volume(ct, grid), Volume(labels, grid), Volume(numbers, grid), tuple(nodes), pose)


def _axial_grid(settings: PhantomSettings, rng: np.random.Generator) -> Grid:
    """An ordinary axial stack; scanners put the origin anywhere."""
    half = (np.array(settings.size) - 1) / 2 * np.array(settings.spacing)
    middle = rng.uniform((-15, -190, -900), (15, -110, 300))
    x, y, z = (float(v) for v in middle - half[::-1])
    return Grid(settings.size, settings.spacing, (x, y, z))


# DICOM series


def write_dicom_series(ct: Volume, folder: Path, *, name: str) -> list[Path]:
    """Write one file per slice.

    Parameters
    ----------
    ct : HU, whole numbers from -1024 to 31743, array (z, y, x).
    folder : where the files go; made if need be.
    name : patient name and id, and the seed of every UID, so that the files are the same on each run.

    Returns
    -------
    The files, lowest slice index first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(ct.grid.size[0]):
        file = folder / f"CT{index + 1:04d}.dcm"
        _slice(ct, index, name).save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def _slice(ct: Volume, index: int, name: str) -> Dataset:
    grid = ct.grid
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = _uid(name, f"slice {index}")
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, _uid(name, f"slice {index}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(name, "study"), _uid(name, "series")
    ds.FrameOfReferenceUID = _uid(name, "frame of reference")
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = name, name, "", "O"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20260101", "120000", "", "1"
    ds.ReferringPhysicianName, ds.PositionReferenceIndicator = "", ""
    ds.Modality, ds.Manufacturer = "CT", "AI-ENE phantom"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.BodyPartExamined, ds.SeriesDescription = "NECK", "phantom, soft tissue"
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 1, 1, index + 1
    ds.KVP, ds.SliceThickness, ds.ConvolutionKernel = "120", f"{grid.spacing[0]:.4f}", "B31f"
    ds.PatientPosition = "HFS"
    ds.ImagePositionPatient = [f"{v:.6f}" for v in grid.points(np.array([index, 0, 0]))]
    ds.ImageOrientationPatient = [f"{v:.8f}" for v in (*grid.direction[2], *grid.direction[1])]
    ds.PixelSpacing = [f"{grid.spacing[1]:.6f}", f"{grid.spacing[2]:.6f}"]
    ds.Rows, ds.Columns = grid.size[1], grid.size[2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(_INTERCEPT), "1", "HU"
    ds.PixelData = (ct.array[index].astype(np.int32) - _INTERCEPT).astype("<u2").tobytes()
    return ds


def _uid(name: str, what: str) -> str:
    return str(generate_uid(entropy_srcs=["AI-ENE phantom", name, what]))
