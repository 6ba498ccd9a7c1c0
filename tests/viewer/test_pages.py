"""What stands in the pages, whatever the run's folder looks like; no browser."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from base64 import b64decode
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import OutputError, UsageError
from aiene.export.source_lookup import CHANGED, GONE
from aiene.geometry.grid import Grid, Volume
from aiene.results.records import CaseResult
from aiene.results.store import RunStore
from aiene.viewer import embedded
from aiene.viewer.risk_groups import Group, read_risk_groups
from aiene.viewer.run import report_run
from builders.export_runs import Run, write_run
from builders.viewer_runs import write_patterned_run


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with its pages, to be read only."""
    made = write_patterned_run(tmp_path_factory.mktemp("reported"))
    report_run(made.out, jobs=1)
    return made


def page_of(run: Run, case_id: str = "case") -> str:
    return (run.out / "cases" / case_id / "report.html").read_text(encoding="utf-8")


def data_of(page: str, name: str) -> bytes:
    found = re.search(rf'<script type="[\w/-]+" id="{name}">(.*?)</script>', page, flags=re.DOTALL)
    assert found, name
    return found[1].encode()


def volume_of(page: str, name: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(b64decode(data_of(page, name))))


@pytest.mark.slow
def test_the_ct_in_the_page_is_the_patients_in_the_patients_place(reported: Run) -> None:
    run = reported
    page = page_of(run)
    native = nib.load(run.series / "case.nii.gz")
    shown, labels = volume_of(page, "ct"), volume_of(page, "labels")
    assert shown.get_data_dtype() == np.int16
    assert nib.aff2axcodes(shown.affine) == ("R", "A", "S")
    to_native = np.linalg.inv(native.affine) @ shown.affine
    values = np.asarray(shown.dataobj)
    for voxel in [(0, 0, 0), (3, 7, 2), tuple(n - 1 for n in values.shape)]:
        at = to_native @ [*voxel, 1]
        np.testing.assert_allclose(at, np.rint(at), atol=1e-3)
        assert values[voxel] == native.dataobj[tuple(np.rint(at[:3]).astype(int))]
    marked = np.asarray(labels.dataobj)
    counts = np.bincount(marked.ravel(), minlength=256)
    assert counts[1] == (run.nodes == 1).sum()
    assert counts[2] == (run.nodes == 2).sum()
    assert counts[255] == ((run.labels == 1) & (run.nodes == 0)).sum()


def test_the_page_says_what_was_found_and_asks_nobody(reported: Run) -> None:
    run = reported
    page = page_of(run)
    about = json.loads(data_of(page, "case"))
    assert [node["name"] for node in about["nodes"]] == ["GTVn_01", "GTVn_02"]
    assert "AI-ENE number</span><b>1</b>" in page
    assert "Trained on phantoms." in page
    assert "Research software, not a medical device." in page
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    assert "default-src &#39;none&#39;" in policy[1]
    assert "connect-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1]
    outside = re.findall(r'(?:src|href)="(?!data:|#|\.\./)([^"]+)"', page)
    assert outside == []


def test_a_key_voxel_lies_in_its_node(reported: Run) -> None:
    run = reported
    page = page_of(run)
    marked = np.asarray(volume_of(page, "labels").dataobj)
    for node in json.loads(data_of(page, "case"))["nodes"]:
        assert marked[tuple(node["key"])] == node["value"]
        areas = (marked == node["value"]).sum(axis=(0, 1))
        assert areas[node["key"][2]] == areas.max()


@pytest.mark.slow
def test_a_ct_that_moved_is_found_by_its_content_and_one_that_changed_is_not_shown(run: Run) -> None:
    elsewhere = run.out.parent / "moved" / "deep"
    elsewhere.mkdir(parents=True)
    shutil.move(run.series / "case.nii.gz", elsewhere / "another-name.nii.gz")
    summary = report_run(run.out, jobs=1)
    assert summary.cards[0].problems == (GONE,)
    page = page_of(run)
    assert GONE in page
    assert "GTVn_01" in page
    assert volume_of(page, "labels").shape == tuple(volume_of(page, "labels").shape)
    assert 'id="ct"' not in page

    assert report_run(run.out, images=elsewhere, jobs=1).unseen == 0
    assert 'id="ct"' in page_of(run)

    other = nib.load(elsewhere / "another-name.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(other.dataobj) + 1, other.affine), run.series / "case.nii.gz")
    assert report_run(run.out, jobs=1).cards[0].problems == (CHANGED,)


@pytest.mark.slow
def test_markup_in_a_case_id_and_in_words_stays_text(run: Run) -> None:
    evil = "<img src=x onerror=alert(1)>&'\""
    sly = "</script><script>alert(2)</script>"
    store = RunStore(run.out)
    store.write_case(CaseResult(evil, "failed", f"a reason {sly}", warnings=(sly,)), None)
    summary = report_run(run.out, jobs=1)
    assert {card.result.case_id for card in summary.cards} == {"case", evil}
    pages = [summary.cohort.read_text("utf-8"), page_of(run, evil)]
    for page in pages:
        assert "<img src=x" not in page
        assert sly not in page
        assert page.count("alert(2)") >= 1  # it is shown, as text
        assert re.findall(r"<script>alert|</script>.{0,3}alert", page) == []
    assert "%3Cimg%20src%3Dx" in pages[0]


@pytest.mark.slow
def test_a_case_that_failed_has_a_page_that_says_why_and_comes_first(run: Run) -> None:
    RunStore(run.out).write_case(CaseResult("zz", "failed", "the CT holds no neck; check it."), None)
    summary = report_run(run.out, jobs=1)
    assert "the CT holds no neck; check it." in page_of(run, "zz")
    rows = {row["id"]: row for row in json.loads(data_of(summary.cohort.read_text("utf-8"), "rows"))}
    assert rows["zz"]["reason"] == "the CT holds no neck; check it."
    assert rows["zz"]["count"] is None
    assert rows["case"]["count"] == 1
    assert rows["case"]["href"] == "cases/case/report.html"


def test_a_case_without_nodes_shows_its_ct(tmp_path: Path) -> None:
    write_patterned_run(tmp_path)
    run = write_run(tmp_path / "none", tmp_path / "cts", planted=(), primary=None)
    report_run(run.out, jobs=1)
    page = page_of(run)
    assert "No nodes were found." in page
    assert "AI-ENE number</span><b>0</b>" in page
    assert 'id="ct"' in page
    assert 'id="solid"' not in page
    assert 'id="surfaces"' not in page, "a script would look for its canvas"


@pytest.mark.slow
def test_a_run_that_is_half_done_shows_what_is_to_come(run: Run) -> None:
    (run.out / "cases.csv").write_text(
        "case_id,status,reason,n_ai_nodes,n_ai_ene,warnings,seconds,source\ncase,ok,,2,1,,1,case\n"
        "later,skipped,not done yet,,,,0,later.nii.gz\ngone,ok,,1,0,,1,gone.nii.gz\n"
    )
    rows = {card.result.case_id: card for card in report_run(run.out, jobs=1).cards}
    assert rows["later"].result.reason == "not done yet"
    assert rows["later"].href == ""
    assert rows["gone"].result.status == "skipped"
    assert rows["case"].href


def test_label_maps_that_are_gone_or_foreign_are_told(run: Run) -> None:
    nodes = run.out / "cases" / "case" / "nodes.nii.gz"
    nodes.unlink()
    assert "outlines cannot be shown" in report_run(run.out, jobs=1).cards[0].problems[0]
    assert "AI-ENE number</span><b>1</b>" in page_of(run)


def test_a_folder_without_a_run_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results of a run"):
        report_run(tmp_path)
    done = CliRunner().invoke(app, ["report", str(tmp_path / "nowhere")])
    assert done.exit_code == 2


@pytest.mark.slow
def test_the_same_run_gives_the_same_pages_and_one_of_the_users_own_stays(run: Run) -> None:
    first = (report_run(run.out, jobs=1).cohort.read_bytes(), page_of(run))
    assert (report_run(run.out, jobs=1).cohort.read_bytes(), page_of(run)) == first
    (run.out / "cases" / "case" / "report.html").write_text("mine")
    with pytest.raises(OutputError, match="move it away"):
        report_run(run.out, jobs=1)
    assert page_of(run) == "mine"


@pytest.mark.slow
def test_the_risk_group_is_that_of_this_count_whatever_the_table_says(run: Run, tmp_path: Path) -> None:
    clinical = tmp_path / "cohort.csv"
    table = {"patient_id": ["case", "other"], "site": "oropharynx", "hpv": "positive", "n_ai_ene": [5, 0]}
    pd.DataFrame(table).to_csv(clinical, index=False)
    groups = tmp_path / "groups.csv"
    words = ["risk", "stratify", str(clinical), "--scheme", "count-0-1-2plus", "-o", str(groups)]
    assert CliRunner().invoke(app, words).exit_code == 0
    stored = pd.read_csv(groups).set_index("patient_id")["combined_group"]
    asked = read_risk_groups(groups)
    assert asked.of({"other": 0, "case": 5}) == {
        key: Group(stored[key], asked.of({key: count})[key].words)
        for key, count in (("other", 0), ("case", 5))
    }
    assert asked.of({"case": 0})["case"].name == stored["other"]
    assert asked.of({"stranger": 1})["stranger"].words == "not in the clinical table"
    assert asked.of({"case": None})["case"].name in ("none", "unclassifiable")
    report_run(run.out, clinical=groups, jobs=1)
    shown = re.search(r"Risk group</span><b>([^<]+)</b>", page_of(run))
    assert shown
    assert shown[1] == asked.of({"case": 1})["case"].name
    assert shown[1] != stored["case"], "the run counts 1, the table 5"


def test_a_large_ct_is_made_to_fit_and_the_page_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid((12, 40, 41), (3.0, 0.6, 0.6), (0.0, 0.0, 0.0))
    noise = np.random.default_rng(4).normal(40, 25, grid.size).astype(np.int16)
    noise[:, :8] -= 1000
    ct = Volume(noise, grid)

    def shown() -> tuple[nib.Nifti1Image, str]:
        text, said = embedded.packed_ct(ct)
        return nib.Nifti1Image.from_bytes(gzip.decompress(b64decode(text))), said

    whole, said = shown()
    assert said == ""
    np.testing.assert_array_equal(np.asarray(whole.dataobj).transpose(2, 1, 0), noise)
    size = embedded._estimated_bytes(ct)
    monkeypatch.setattr(embedded, "MOST_BYTES", int(size * 0.7))
    stepped, said = shown()
    apart = np.abs(np.asarray(stepped.dataobj).transpose(2, 1, 0).astype(int) - noise)[:, 8:]
    steps = int(re.search(r"steps of (\d) HU", said)[1])  # type: ignore[index]
    assert 0 < apart.max() <= steps / 2
    monkeypatch.setattr(embedded, "MOST_BYTES", int(size * 0.15))
    coarse, said = shown()
    assert coarse.shape == (20, 20, 12)
    assert "outlines are not" in said
    middle = whole.affine @ [0.5, 0.5, 0, 1]  # of the first coarse voxel, among the fine ones
    np.testing.assert_allclose(coarse.affine @ [0, 0, 0, 1], middle, atol=1e-3)
    monkeypatch.setattr(embedded, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="too small"):
        shown()
