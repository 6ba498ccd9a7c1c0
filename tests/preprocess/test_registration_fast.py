"""`--registration fast`: the published registration on the part of the CT that the template can reach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiene.errors import UsageError
from aiene.geometry.grid import Grid, Volume
from aiene.models.bundle import find_bundle
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.pipeline import settings_for
from aiene.preprocess.profile import OPEN, PUBLISHED, profile_named
from aiene.preprocess.registration import Pose, Template, reachable
from aiene.preprocess.registration_quality import register
from aiene.preprocess.resampling import Working
from aiene.provenance import chosen_of

TEMPLATE = Grid((10, 12, 14), (3.0, 2.0, 1.0), (5.0, -3.0, 7.0))
CT = Grid((40, 50, 60), (3.0, 2.0, 2.0), (-60.0, -50.0, -60.0))
SMALL = PhantomSettings(size=(50, 70, 70), spacing=(4.0, 3.0, 3.0), nodes=(1, 2), tilt_degrees=0.0)


@settings(max_examples=50, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
    shift=st.tuples(*[st.floats(-100, 100)] * 3),
    margin=st.floats(0, 40),
)
def test_what_is_kept_is_the_ct_around_the_template(
    angles: tuple[float, float, float], shift: tuple[float, float, float], margin: float
) -> None:
    values = np.arange(np.prod(CT.size), dtype=np.float32).reshape(CT.size)
    pose = Pose(angles, shift, TEMPLATE.centre)
    part = reachable(Volume(values, CT), TEMPLATE, [pose], margin)
    first = np.rint(CT.indices(np.array(part.grid.origin)[None])[0]).astype(int)
    kept = tuple(slice(a, a + n) for a, n in zip(first, part.grid.size, strict=True))
    np.testing.assert_array_equal(part.array, values[kept])
    np.testing.assert_allclose(part.grid.origin, CT.points(first[None])[0], atol=1e-9)
    # every voxel of the CT that lies within the margin of a template point is there
    steps = np.stack(np.meshgrid(*(np.arange(n) for n in TEMPLATE.size), indexing="ij"), -1).reshape(-1, 3)
    at = CT.indices(pose.rigid().apply(TEMPLATE.points(steps)))
    wide = margin / np.array(CT.spacing)
    low = np.clip(np.ceil(at.min(axis=0) - wide), 0, np.array(CT.size) - 1)
    high = np.clip(np.floor(at.max(axis=0) + wide), 0, np.array(CT.size) - 1)
    if (at.max(axis=0) + wide >= 0).all() and (at.min(axis=0) - wide <= np.array(CT.size) - 1).all():
        assert (first <= low).all()
        assert (first + part.grid.size > high).all()


@pytest.mark.slow
def test_a_ct_with_much_around_the_template_is_laid_where_the_published_registration_lays_it() -> None:
    volume = make_phantom(5, SMALL).ct
    template = Template(volume.with_array(volume.array.astype(np.float32)), volume.grid.centre)
    wide = np.pad(template.volume.array, ((0, 10), (40, 20), (30, 30)), constant_values=-1000)
    grid = replace(volume.grid.crop((0, -40, -30), wide.shape), origin=(-3.0, 4.0, 5.0))
    working = Working(Volume(wide, grid), None, grid)  # type: ignore[arg-type]
    profile = replace(PUBLISHED, registration=replace(PUBLISHED.registration, sampling=0.2, shrink=(2, 1, 1)))
    exact, fast = (register(working, template, replace(profile, reach_mm=mm)) for mm in (None, 30.0))
    corners = template.volume.grid.corners()
    apart = np.linalg.norm(
        fast.kept.pose.rigid().apply(corners) - exact.kept.pose.rigid().apply(corners), axis=1
    )
    assert apart.max() < 2.0
    assert [a.start for a in fast.tried] == [a.start for a in exact.tried] == ["geometry", "search"]
    again = register(working, template, replace(profile, reach_mm=30.0))
    assert again.kept.pose == fast.kept.pose


def test_only_the_published_profile_has_a_fast_registration() -> None:
    assert profile_named("open", rescue=True, registration="fast") == OPEN
    fast = profile_named("published", rescue=False, registration="fast")
    assert fast.reach_mm is not None
    assert replace(fast, reach_mm=None) == PUBLISHED
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
