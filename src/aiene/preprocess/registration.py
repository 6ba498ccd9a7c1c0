"""Rigid registration of a CT to the template, bit for bit the same at any number of threads.

A registration begins at one of several starts; one of them is the best of all shifts, found by normalised
cross-correlation of the whole volumes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import fft

from aiene.geometry.grid import Grid, RigidTransform, Triple, Volume, to_sitk, triple
from aiene.geometry.resample import aligned_grid, downsample, resample
from aiene.preprocess.patient import BONE_HU, body_mask, centre_of, dilate
from aiene.preprocess.profile import RegistrationSettings, Start

_RIM_MM = 12.0
LATTICE_MM = 6.0
_WINDOW = (-400.0, 400.0)
_LEAST_OVERLAP = 0.6  # shifts with less than this share of the largest overlap count as -1
Floats = npt.NDArray[np.float64]
_COARSE_MM = (5.0, 5.0, 5.0)


# Poses


@dataclass(frozen=True)
class Pose:
    """A rigid transform from template points to CT points, kept to the bit as SimpleITK's Euler 3D.

    Parameters
    ----------
    angles : radians about x, y, z.
    translation : mm along x, y, z.
    centre : LPS mm of the point of the template about which it turns.
    """

    angles: Triple
    translation: Triple
    centre: Triple

    @classmethod
    def of(cls, euler: sitk.Euler3DTransform) -> Pose:
        """The pose of SimpleITK's transform."""
        p = euler.GetParameters()
        return cls(p[:3], p[3:], euler.GetFixedParameters()[:3])

    def euler(self) -> sitk.Euler3DTransform:
        """SimpleITK's transform."""
        euler = sitk.Euler3DTransform()
        euler.SetFixedParameters((*self.centre, 0.0))
        euler.SetParameters((*self.angles, *self.translation))
        return euler

    def rigid(self) -> RigidTransform:
        """Ours."""
        turn = np.array(self.euler().GetMatrix()).reshape(3, 3)
        centre = np.array(self.centre)
        matrix = np.eye(4)
        matrix[:3, :3] = turn
        matrix[:3, 3] = np.array(self.translation) + centre - turn @ centre
        return RigidTransform.from_matrix(matrix)


# Single thread, so that sums repeat bit for bit


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, every filter of SimpleITK uses one thread.

    `SetNumberOfThreads` on a registration does not reach its metric, which sums in another order with more
    threads. The number set before is put back at the end.
    """
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def registration_image(volume: Volume, settings: RegistrationSettings) -> Volume:
    """What the registration sees of a volume, float32: as it is, or averaged to a coarser spacing."""
    if settings.spacing_mm is None:
        return volume.with_array(volume.array.astype(np.float32, copy=False))
    return downsample(volume, (settings.spacing_mm,) * 3)


def centred_pose(fixed: Volume, moving: Volume) -> Pose:
    """The pose that lays the volumes' middles on each other, without a turn."""
    start = sitk.CenteredTransformInitializer(
        to_sitk(fixed),
        to_sitk(moving),
        sitk.Euler3DTransform(),
        sitk.CenteredTransformInitializerFilter.GEOMETRY,
    )
    return Pose.of(sitk.Euler3DTransform(start))


def refine(fixed: Volume, moving: Volume, start: Pose, settings: RegistrationSettings) -> Pose | None:
    """The pose of a local optimum of Mattes mutual information, found from `start`; None where there is none.

    There is none where template and CT lose all overlap on the way.

    Parameters
    ----------
    fixed, moving : template and CT, float32.
    start : maps template points to CT points.
    settings : the profile's."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=settings.bins)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(settings.sampling, settings.seed)
    method.SetInterpolator(sitk.sitkLinear)
    _set_optimizer(method, settings)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(list(settings.shrink))
    method.SetSmoothingSigmasPerLevel(list(settings.smoothing_mm))
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    if settings.within_body:
        near = dilate(body_mask(fixed), fixed.grid.spacing, _RIM_MM)
        method.SetMetricFixedMask(to_sitk(fixed.with_array(near.astype(np.uint8))))
    method.SetInitialTransform(start.euler(), inPlace=False)
    try:
        with one_thread():
            found = method.Execute(to_sitk(fixed), to_sitk(moving))
    except RuntimeError:
        return None
    return Pose.of(sitk.Euler3DTransform(sitk.CompositeTransform(found).GetNthTransform(0)))


def _set_optimizer(method: sitk.ImageRegistrationMethod, settings: RegistrationSettings) -> None:
    if settings.first_step_mm is None:
        method.SetOptimizerAsGradientDescent(
            learningRate=1.0,
            numberOfIterations=settings.iterations,
            convergenceMinimumValue=settings.convergence,
            convergenceWindowSize=settings.convergence_window,
        )
        return
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=settings.first_step_mm,
        minStep=settings.last_step_mm,
        numberOfIterations=settings.iterations,
        relaxationFactor=0.5,
        gradientMagnitudeTolerance=1e-8,
    )


# Exhaustive search of the shift


def correlations(fixed: Volume, moving: Volume) -> tuple[Floats, Grid]:
    """Normalised correlation of two volumes for every shift, over the voxels that both know.

    Parameters
    ----------
    fixed, moving : on lattices of one spacing and direction; NaN where unknown.

    Returns
    -------
    The correlations (z, y, x), and the lattice of the shift vectors: its point at a voxel is what must be
    added to a point of `fixed` to reach `moving`.

    Source
    ------
    D. Padfield, Masked object registration in the Fourier domain, IEEE Trans. Image Process. 21:2706, 2012.
    """
    shape = [a + b - 1 for a, b in zip(fixed.grid.size, moving.grid.size, strict=True)]
    padded = [fft.next_fast_len(n, real=True) for n in shape]

    def spectrum(values: Floats) -> npt.NDArray[np.complex128]:
        return np.asarray(fft.rfftn(values, padded, workers=1))

    def product(a: npt.NDArray[np.complex128], b: npt.NDArray[np.complex128]) -> Floats:
        back = fft.irfftn(a * b, padded, workers=1)
        return np.asarray(back[tuple(slice(n) for n in shape)])

    known_f, known_m = np.isfinite(fixed.array), np.isfinite(moving.array)[::-1, ::-1, ::-1]
    f = np.where(known_f, fixed.array, 0).astype(np.float64) / 1000
    m = np.where(known_m, moving.array[::-1, ::-1, ::-1], 0).astype(np.float64) / 1000
    mask_f, mask_m, f1, m1 = (spectrum(a) for a in (known_f.astype(float), known_m.astype(float), f, m))
    n = np.maximum(np.rint(product(mask_f, mask_m)), 1)
    sum_f, sum_m = product(f1, mask_m), product(mask_f, m1)
    var_f = np.maximum(product(spectrum(f * f), mask_m) - sum_f**2 / n, 0)
    var_m = np.maximum(product(mask_f, spectrum(m * m)) - sum_m**2 / n, 0)
    covariance = product(f1, m1) - sum_f * sum_m / n
    scale = np.sqrt(var_f * var_m)
    usable = (n >= _LEAST_OVERLAP * n.max()) & (scale > 1e-6 * scale.max())
    values = np.full(n.shape, -1.0)
    np.divide(covariance, scale, out=values, where=usable)
    return values, _shift_lattice(fixed.grid, moving.grid, (shape[0], shape[1], shape[2]))


def best_shift(fixed: Volume, moving: Volume) -> Triple:
    """The vector (LPS mm) from points of the template to points of the CT, at the best correlation.

    Parameters
    ----------
    fixed, moving : template and CT in HU, averaged to a few mm.
    """
    values, lattice = correlations(_known_part(fixed, fixed.grid), _known_part(moving, fixed.grid))
    at = np.unravel_index(int(np.argmax(values)), values.shape)
    return triple(lattice.points(np.array(at)))


def _known_part(volume: Volume, like: Grid) -> Volume:
    """Windowed HU on an upright lattice; NaN outside the volume and away from the body."""
    body = dilate(body_mask(volume), volume.grid.spacing, _RIM_MM)
    lattice = aligned_grid(volume.grid, like, LATTICE_MM)
    values = resample(volume, lattice, order=1, outside=np.nan).array.clip(*_WINDOW)
    near = resample(volume.with_array(body.astype(np.float32)), lattice, order=1, outside=0.0).array > 0.5
    return Volume(np.where(near, values, np.nan), lattice)


def _shift_lattice(fixed: Grid, moving: Grid, shape: tuple[int, int, int]) -> Grid:
    """Where in the space of shifts the correlations lie: voxel k pairs fixed i, moving i + size - 1 - k."""
    axes = np.array(moving.direction)
    last = np.array(moving.size) - 1
    first = np.array(moving.origin) - np.array(fixed.origin) + (last * np.array(moving.spacing)) @ axes
    return Grid(
        size=shape,
        spacing=moving.spacing,
        origin=triple(first),
        direction=(triple(-axes[0]), triple(-axes[1]), triple(-axes[2])),
    )


# Starts


def start_pose(start: Start, fixed: Volume, moving: Volume) -> Pose | None:
    """The pose from which a registration begins, without a turn; None where the start does not exist.

    Parameters
    ----------
    start : `geometry` centres the two volumes, `search` takes the best of all shifts, `body` and `bone` lay
        centres of mass on each other, `top` the tops of the bodies.
    fixed, moving : template and CT in HU.
    """
    pose = centred_pose(fixed, moving)
    if start == "geometry":
        return pose
    coarse_fixed, coarse_moving = downsample(fixed, _COARSE_MM), downsample(moving, _COARSE_MM)
    if start == "search":
        return replace(pose, translation=best_shift(coarse_fixed, coarse_moving))
    here, there = _landmark(start, coarse_fixed), _landmark(start, coarse_moving)
    return None if here is None or there is None else replace(pose, translation=triple(there - here))


def _landmark(start: Start, volume: Volume) -> npt.NDArray[np.float64] | None:
    body = body_mask(volume)
    if start == "bone":
        return centre_of(body & (volume.array > BONE_HU), volume)
    if start == "body" or not body.any():
        return centre_of(body, volume)
    points = volume.grid.points(np.argwhere(body))
    top = points[:, 2].max()
    upper: npt.NDArray[np.float64] = points[points[:, 2] > top - 100].mean(axis=0)
    upper[2] = top
    return upper


@dataclass(frozen=True, eq=False)
class Template:
    """A head-and-neck CT that fixes the space of the crops.

    Parameters
    ----------
    volume : float32 HU.
    neck_centre : LPS mm (x, y, z) on which a crop that follows the patient is centred along z.
    """

    volume: Volume
    neck_centre: Triple
