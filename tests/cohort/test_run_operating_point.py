"""`aiene run --operating-point` and `--pos-from`: what a bundle offers, and what is told of it."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import aiene.case_worker
import aiene.cohort
from aiene.cli.app import app
from aiene.errors import ModelError
from aiene.geometry.grid import Grid, Volume
from aiene.models.bundle import CARD, default_folder, find_bundle
from aiene.nodes.node import CountingRule
from aiene.results.nifti import nifti_bytes
from aiene.results.records import CaseArrays, CaseResult
from aiene.segment.segmenter import load_bundle_segmenter

GRID = Grid((6, 7, 8), (3.0, 2.0, 2.0), (0.0, 0.0, 0.0))


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """`two` has two operating points and a least `pos`, `none` has neither."""
    for name, points, pos_from in (("two", {"balanced": 0.0, "sensitive": -2.5}, 0.4), ("none", {}, 0.0)):
        shutil.copytree(default_folder(), tmp_path / name)
        card = json.loads((tmp_path / name / CARD).read_text(encoding="utf-8"))
        card |= {"name": name, "pos_from": pos_from}
        card["segmenter"] |= {"operating_points": points, "cores": {}}
        (tmp_path / name / CARD).write_text(json.dumps(card), encoding="utf-8")
    return tmp_path


@pytest.fixture
def cts(tmp_path: Path) -> Path:
    file = tmp_path / "in" / "a.nii"
    file.parent.mkdir()
    file.write_bytes(gzip.decompress(nifti_bytes(Volume(np.zeros(GRID.size, np.int16), GRID))))
    return file.parent


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings of each case that was worked on, and what its networks were loaded with."""
    told: list[Any] = []
    labels = Volume(np.zeros(GRID.size, np.uint8), GRID)

    def infer_case(at: Any, networks: Any, settings: Any, **_: Any) -> tuple[CaseResult, CaseArrays]:
        told.append((settings, networks))
        return CaseResult(at.case.case_id, "no_nodes"), CaseArrays(labels, labels)

    monkeypatch.setattr(
        aiene.case_worker, "preprocess_case", lambda case, *_, **__: SimpleNamespace(case=case)
    )
    monkeypatch.setattr(aiene.cohort, "infer_case", infer_case)
    monkeypatch.setattr(aiene.case_worker, "load_preparation", lambda *_: SimpleNamespace(midline_x=0.0))
    monkeypatch.setattr(
        aiene.case_worker, "load_networks", lambda *_, **options: SimpleNamespace(segmenter=None, **options)
    )
    return told


def run(cts: Path, out: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["run", str(cts), "-o", str(out), "--jobs", "1", "-d", "cpu", *words])
    return done.exit_code, " ".join(done.output.split())


def test_the_point_reaches_the_segmenter_and_stands_in_the_record(
    bundles: Path, cts: Path, asked: list[Any], tmp_path: Path
) -> None:
    model = ("--model", str(bundles / "two"))
    code, text = run(cts, tmp_path / "out", *model, "--operating-point", "sensitive")
    assert code == 0, text
    ((settings, loaded),) = asked
    assert (settings.operating_point, loaded.operating_point) == ("sensitive", "sensitive")
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["settings"]
    assert (record["operating_point"], record["pos_from"]) == ("sensitive", 0.4)
    assert pd.read_csv(tmp_path / "out" / "patients.csv").ai_pos_from.tolist() == [0.4]
    code, text = run(cts, tmp_path / "out", *model)  # results of two points never stand in one folder
    assert code == 2, text


def test_the_least_pos_can_be_set_as_the_threshold_can(
    bundles: Path, cts: Path, asked: list[Any], tmp_path: Path
) -> None:
    run(cts, tmp_path / "out", "--model", str(bundles / "two"), "--pos-from", "0")
    threshold = find_bundle("default").card.ene_threshold
    assert asked[0][0].rule == CountingRule(threshold, 0.0)
    assert run(cts, tmp_path / "other", "--pos-from", "1.5")[0] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "none", "--operating-point", "sensitive"], "no such point (it has none)"),
        (["--model", "none", "--operating-point", "balanced"], "leave the option out"),
        (["--model", "two", "--operating-point", "keen"], "balanced"),
        (["--model", "two", "--operating-point", "sensitive", "--masks", "in"], "leave one out"),
    ],
)
def test_a_point_that_is_not_there_is_refused_in_one_sentence(
    bundles: Path, cts: Path, asked: list[Any], words: list[str], said: str
) -> None:
    where = [str(bundles / word) if word in ("two", "none", "in") else word for word in words]
    code, text = run(cts, bundles / "out", *where)
    assert code == 2
    assert said in text
    assert "Traceback" not in text
    assert not asked
    assert not (bundles / "out").exists()


def test_a_bundle_s_point_is_its_segmenters_offset(bundles: Path) -> None:
    bundle = find_bundle(str(bundles / "two"))
    offsets = {
        point: load_bundle_segmenter(bundle, None, point).node_offset for point in ("balanced", "sensitive")
    }
    assert offsets == {"balanced": 0.0, "sensitive": -2.5}
    assert load_bundle_segmenter(bundle).node_offset == 0


@pytest.mark.parametrize(
    ("offset", "logit", "core"), [(0.0, 0.0, 4.0), (-2.5, 0.0, 1.5), (-4.0, 0.0, 0.0), (-6.0, -2.0, 0.0)]
)
def test_where_nodes_need_a_core_a_point_moves_that_and_the_contours_stay(
    bundles: Path, offset: float, logit: float, core: float
) -> None:
    file = bundles / "two" / CARD
    card = json.loads(file.read_text(encoding="utf-8"))
    card["segmenter"] |= {"cores": {"GTVn": 4.0, "GTVp": 2.0}}
    card["segmenter"]["operating_points"]["sensitive"] = offset
    file.write_text(json.dumps(card), encoding="utf-8")
    segmenter = load_bundle_segmenter(find_bundle(str(bundles / "two")), None, "sensitive")
    assert segmenter.node_offset == logit
    assert segmenter.cores == {1: 2.0, 2: core}


def test_a_core_of_a_label_that_is_not_there_is_no_card(bundles: Path) -> None:
    file = bundles / "two" / CARD
    card = json.loads(file.read_text(encoding="utf-8"))
    card["labels"] = {"GTVn": 2}
    card["segmenter"] |= {"cores": {"GTVp": 2.0}}
    file.write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(ModelError, match="a core of a label that the segmenter does not know"):
        find_bundle(str(bundles / "two"))
