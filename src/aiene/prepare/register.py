"""Rigid registration of a CT to the template: the same bytes at any number of threads."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from aiene.geometry import Volume, to_sitk
from aiene.prepare.body import body_mask, grown
from aiene.prepare.pose import Pose
from aiene.prepare.profile import RegistrationSettings
from aiene.prepare.shrink import shrunk
from aiene.prepare.threads import one_thread

_RIM_MM = 12.0


def registration_image(volume: Volume, settings: RegistrationSettings) -> Volume:
    """What the registration sees of a volume, float32: as it is, or averaged to a coarser spacing."""
    if settings.spacing_mm is None:
        return volume.with_array(volume.array.astype(np.float32, copy=False))
    return shrunk(volume, (settings.spacing_mm,) * 3)


def centred(fixed: Volume, moving: Volume) -> Pose:
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
        method.SetMetricFixedMask(_near_body(fixed))
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


def _near_body(fixed: Volume) -> sitk.Image:
    near = grown(body_mask(fixed), fixed.grid.spacing, _RIM_MM)
    return to_sitk(fixed.with_array(near.astype(np.uint8)))
