"""The road with segmenters of other kinds: one that takes HU, one that knows no primary tumour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aiene.geometry.grid import Grid, RigidTransform, Volume
from aiene.ingest.case import Case, NativeCt
from aiene.models.bundle import Bundle, ModelCard, default_folder, find_bundle
from aiene.nodes.node import CountingRule
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.pipeline import Networks, PreprocessedCase, Settings, infer_case
from aiene.preprocess.preprocess import Prepared, fixed_window, load_preparation, prepare
from aiene.results.tables import patients_table, published_table
from aiene.segment.engines import exact_engine

GRID = Grid((64, 160, 160), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))


class _Segmenter:
    """Gives a fixed label map, and remembers what it was fed."""

    def __init__(self, labels: np.ndarray, *, takes_hu: bool = False) -> None:
        self._labels, self.takes_hu = labels, takes_hu
        self.fed: Volume | None = None

    engine = exact_engine(())

    def __call__(self, crop: Volume) -> Volume:
        self.fed = crop
        return crop.with_array(self._labels)


class _Classifier:
    def scores(self, crop: Volume, nodes: list[object]) -> list[None]:
        return [None] * len(nodes)


def _ready(crop_hu: Volume | None = None) -> PreprocessedCase:
    crop = Volume(np.zeros(GRID.size, np.float32), GRID)
    prepared = Prepared(crop, GRID, RigidTransform(), None, (), crop_hu)  # type: ignore[arg-type]
    return PreprocessedCase(Case("one", "nifti", ()), prepared, None, {}, ())


def _finish(at: PreprocessedCase, segmenter: _Segmenter, labels: dict[str, int]) -> Any:
    networks = Networks(segmenter, _Classifier())  # type: ignore[arg-type]
    return infer_case(at, networks, Settings(0.3), labels=labels, midline_x=80.0)


def test_without_a_label_for_it_nobody_says_that_no_primary_was_found() -> None:
    found = np.zeros(GRID.size, np.uint8)
    found[20:26, 60:72, 60:72] = 2
    result, _ = _finish(_ready(), _Segmenter(found), {"GTVn": 1})
    assert result.has_primary is None
    assert "none was looked for" in " ".join(result.notes)
    row = patients_table([result], model="m", rule=CountingRule(0.3)).iloc[0]
    assert row["primary_found"] is None or np.isnan(row["primary_found"])
    assert row["n_ai_nodes"] == 1
    with_label, _ = _finish(_ready(), _Segmenter(found), {"GTVn": 1, "GTVp": 2})
    assert with_label.has_primary is False
    assert with_label.notes == ()


def test_a_case_without_nodes_from_such_a_model_has_no_published_row() -> None:
    result, _ = _finish(_ready(), _Segmenter(np.zeros(GRID.size, np.uint8)), {"GTVn": 1})
    assert result.status == "no_nodes"
    assert published_table([result], axes=False).empty


def test_a_segmenter_that_takes_hu_is_fed_hu_and_its_label_map_is_the_roads() -> None:
    hu = Volume(np.full(GRID.size, 40.0, np.float32), GRID)
    segmenter = _Segmenter(np.zeros(GRID.size, np.uint8), takes_hu=True)
    _finish(_ready(hu), segmenter, {"GTVn": 2, "GTVp": 1})
    assert segmenter.fed is hu
    scaled = _Segmenter(np.zeros(GRID.size, np.uint8))
    at = _ready(hu)
    _finish(at, scaled, {"GTVn": 2, "GTVp": 1})
    assert scaled.fed is at.prepared.crop


def _taking_hu(bundle: Bundle) -> Bundle:
    card = bundle.card.model_dump(mode="json")
    card["segmenter"]["intensities"] = "hu"
    return replace(bundle, card=ModelCard.model_validate(card))


@pytest.mark.slow
def test_the_crop_in_hu_is_the_crop_before_its_window() -> None:
    preparation = load_preparation(_taking_hu(find_bundle(str(default_folder()))))
    phantom = make_phantom(5, PhantomSettings(size=(80, 110, 110), spacing=(3.0, 2.0, 2.0), table=False))
    prepared = prepare(NativeCt(phantom.ct, 2), preparation.template, preparation.profile)
    assert prepared.crop_hu is not None
    assert prepared.crop_hu.grid == prepared.crop.grid
    np.testing.assert_array_equal(fixed_window(prepared.crop_hu.array), prepared.crop.array)
    assert prepared.crop_hu.array.min() < -900
    assert prepared.crop_hu.array.max() > 700
    usual = load_preparation(find_bundle(str(default_folder())))
    assert not usual.profile.keep_hu
