"""`--registration fast`: bundles of the published profile registered as the open profile does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aiene.errors import UsageError
from aiene.geometry.grid import RigidTransform, Volume
from aiene.models.bundle import find_bundle
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.pipeline import settings_for
from aiene.preprocess.profile import OPEN, PUBLISHED, profile_named
from aiene.preprocess.registration import Template
from aiene.preprocess.registration_quality import register
from aiene.preprocess.resampling import Working
from aiene.provenance import chosen_of

QUICK = replace(PUBLISHED.registration, sampling=0.2, shrink=(2, 1, 1), iterations=40)
SMALL = PhantomSettings(size=(50, 70, 70), spacing=(4.0, 3.0, 3.0), nodes=(1, 2), tilt_degrees=0.0)


@pytest.mark.slow
def test_a_ct_is_laid_on_the_template_as_published_but_for_some_mm_and_better() -> None:
    volume = make_phantom(5, SMALL).ct
    template = Template(volume.with_array(volume.array.astype(np.float32)), volume.grid.centre)
    wide = np.pad(template.volume.array, ((0, 10), (20, 10), (15, 15)), constant_values=-1000)
    grid = replace(volume.grid.crop((0, -20, -15), wide.shape), origin=(-3.0, 4.0, 5.0))
    working = Working(Volume(wide, grid), RigidTransform(), grid)
    true = np.subtract(grid.origin, volume.grid.crop((0, -20, -15), wide.shape).origin)  # same anatomy, moved
    fast = profile_named("published", rescue=False, registration="fast")
    found = register(working, template, fast)
    corners = template.volume.grid.corners()
    off = np.linalg.norm(found.kept.pose.rigid().apply(corners) - corners - true, axis=1)
    assert off.max() < 1.0
    exact = register(working, template, replace(PUBLISHED, registration=QUICK))
    assert found.kept.verdict.metric <= exact.kept.verdict.metric + 1e-3
    assert register(working, template, fast).kept == found.kept  # repeats bit for bit


def test_only_the_published_profile_has_a_fast_registration() -> None:
    assert profile_named("open", rescue=True, registration="fast") == OPEN
    fast = profile_named("published", rescue=False, registration="fast")
    of_registration = ("start", "registration", "second_opinion", "rescue")
    assert fast == replace(PUBLISHED, **{name: getattr(OPEN, name) for name in of_registration})
    with pytest.raises(
        UsageError, match="--registration fast is for bundles of the published profile; default"
    ):
        settings_for(find_bundle("default"), registration="fast")


def test_a_run_of_the_other_registration_is_another_run() -> None:
    bundle = find_bundle("default")
    bundle = replace(bundle, card=bundle.card.model_copy(update={"profile": "published"}))
    exact, fast = (chosen_of(settings_for(bundle, registration=word)) for word in ("exact", "fast"))
    assert "registration" not in exact  # so that runs of before can be gone on with
    assert fast == {**exact, "registration": "fast"}
