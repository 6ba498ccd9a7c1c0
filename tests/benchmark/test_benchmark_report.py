"""The report of a benchmark: its numbers, its pictures, and that it needs nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aiene.benchmark.report.charts.cases import rank_stability
from aiene.benchmark.report.write import write_report
from aiene.errors import InputError, OutputError
from aiene.report.document import Figure
from aiene.report.style import render
from aiene.report.write import figure_csv
from builders import benchmark_reports as build

CHARTS = {
    *("dice_gtvp", "dice_gtvn", "volumes_gtvp", "volumes_gtvn", "roc_on_truth", "calibration_on_truth"),
    *(
        "froc",
        "time_dice",
        "ranks_dice_gtvn",
        "ranks_dice_gtvn_by_patient",
        "worst_perfect",
        "worst_empty",
        "sensitivity_by_size",
    ),
    "worst_moved_x_a",
}


class Page(HTMLParser):
    """What a page holds: elements with their attributes, numbers of tables, text by section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.numbers: list[tuple[float, str]] = []
        self.cells: list[str] = []
        self.text = ""
        self._value: str | None = None
        self._depth = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        if tag == "data":
            self._value = found["value"]
        if tag == "td":
            self.cells.append("")
            self._depth = 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._depth = 0
        if tag == "data":
            self._value = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._depth:
            self.cells[-1] += data
        if self._value is not None:
            self.numbers.append((float(self._value), data))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark that is done, with its report."""
    out = build.finished(tmp_path_factory.mktemp("report"))
    build.change(out, build.judged)
    write_report(out)
    return out


@pytest.fixture
def out(done: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil; without a report."""
    copy = tmp_path / "copy"
    shutil.copytree(done, copy, ignore=shutil.ignore_patterns("benchmark_charts_*", "*.html"))
    return copy


@pytest.fixture(scope="module")
def page(done: Path) -> Page:
    """The report, parsed."""
    return Page(_html(done))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are not drawn, which is quicker where only words are looked at."""
    monkeypatch.setattr("aiene.report.write.render", lambda figure, stamp: _BLANK)


def _html(folder: Path) -> str:
    return (folder / f"benchmark_report_{build.STAMP}.html").read_text(encoding="utf-8")


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


@pytest.mark.slow
def test_every_number_in_a_table_is_in_the_summary(page: Page, done: Path) -> None:
    known = set(_numbers(json.loads(build.summary_file(done).read_text(encoding="utf-8"))))
    assert len(page.numbers) > 300
    assert [number for number, _ in page.numbers if number not in known] == []


def test_a_number_is_shown_as_it_is_but_for_rounding(page: Page) -> None:
    for number, text in page.numbers:
        said = text.replace("−", "-").strip()
        if said.startswith("<") or said[-1] in "kMGT":
            continue
        digits = len(said.partition(".")[2])
        assert abs(float(said) - number) <= 0.5 * 10**-digits + 1e-9


def test_the_main_table_holds_the_figures_computed_by_hand(page: Page) -> None:
    # moved by a voxel: 5/6 of 144 and 4/5 of 100 voxels of the nodes stay, 3/4 of the primary
    row = page.cells.index("6 / 1") - 1
    assert page.cells[row] == build.ODD
    # and one of the seven cases has no prediction, which counts as 0
    assert page.cells[row + 2].startswith(f"{0.75 * 6 / 7:.3f}")
    assert page.cells[row + 3].startswith(f"{200 / 244 * 6 / 7:.3f}")


def test_nothing_is_loaded_from_anywhere(page: Page, done: Path) -> None:
    charts = f"benchmark_charts_{build.STAMP}"
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            where = attributes.get(name, "#")
            beside = tag == "a" and where.startswith(f"{charts}/") and (done / where).is_file()
            assert beside or where.startswith(("data:image/", "#"))
    html = re.sub(r'base64,[A-Za-z0-9+/=]+|xmlns(:xlink)?="[^"]*"|url\(#[^)]*\)', "", _html(done))
    assert not re.search(r"url\(|@import|https?://", html)


def test_every_link_of_the_contents_leads_somewhere_and_no_anchor_is_there_twice(page: Page) -> None:
    anchors = [a["id"] for _, a in page.elements if "id" in a]
    links = [a["href"][1:] for tag, a in page.elements if tag == "a" and a["href"].startswith("#")]
    sections = [a["id"] for tag, a in page.elements if tag == "section"]
    assert len(anchors) == len(set(anchors))
    assert len(links) == 10
    assert links == sections


def test_every_chart_is_there_as_png_svg_and_csv_and_on_the_page(page: Page, done: Path) -> None:
    folder = done / f"benchmark_charts_{build.STAMP}"
    assert {file.name for file in folder.iterdir()} == {
        f"{name}.{ending}" for name in CHARTS for ending in ("png", "svg", "csv", "txt")
    }
    for name in CHARTS:
        svg = (folder / f"{name}.svg").read_text(encoding="utf-8")
        assert svg.lstrip().startswith("<?xml")
        assert "<dc:date>" not in svg
        with Image.open(folder / f"{name}.png") as png:
            assert min(png.size) > 150
        assert len((folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()) > 1
    photographs = [a for tag, a in page.elements if tag == "img"]
    assert len(photographs) == sum(name.startswith("worst_") for name in CHARTS)
    assert all(image["alt"] for image in photographs)
    assert {a["id"] for tag, a in page.elements if tag == "figure"} == {f"fig-{name}" for name in CHARTS}


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes_in_another_process(done: Path, out: Path) -> None:
    code = "import sys, pathlib, aiene.benchmark.report.write as r; r.write_report(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(out)], check=True)
    assert _html(out) == _html(done)
    for file in (done / f"benchmark_charts_{build.STAMP}").iterdir():
        assert (out / file.parent.name / file.name).read_bytes() == file.read_bytes()


def test_it_says_what_was_compared_and_how(page: Page, done: Path) -> None:
    summary = json.loads(build.summary_file(done).read_text(encoding="utf-8"))
    text = _plain(page.text)
    assert "Research software, not a medical device." in text
    assert "7 cases of 7 patients with 14 lymph nodes" in text
    assert "3 models could be run, 1 could not." in text
    assert summary["data"]["sha256"] in text
    assert f"numpy {summary['machine']['packages']['numpy']}" in text
    for setting in summary["settings"]:
        assert setting in text or setting == "models"
    assert "where a label is in neither truth nor prediction, that is right" in text.lower()
    assert "100 bootstrap resamples" in text


def test_a_difference_and_none_are_both_said_in_words(page: Page) -> None:
    text = _plain(page.text)
    assert re.search(r"<moved> & \$x\$ \{\{ a \}\}: is worse than perfect; difference −\d\.\d{3} \(", text)
    assert "GTVn, empty: no difference from perfect shown in any metric" in text  # 34 secondary tests


def test_it_opens_with_the_verdict_of_the_primary_endpoint(page: Page) -> None:
    text = _plain(page.text)
    start = text.index("Primary endpoint: Dice of GTVn. Counted: 7 cases of 7 patients")
    assert text.index("is worse than perfect") > start
    assert start < text.index("Everything else in this report is secondary") < text.index("Main figures")
    assert f"Cases without a prediction: {build.ODD} 1." in text
    assert "0.857" in [said for _, said in page.numbers]  # of 14 nodes two are missed with their case


def test_what_could_not_be_run_stands_there_with_its_reason(page: Page) -> None:
    assert any(cell.startswith("not_there:") for cell in page.cells)
    assert "Cases that failed in a model" in page.text
    row = page.cells.index("case_6")
    assert page.cells[row - 1] == build.ODD


def test_names_cannot_become_markup(page: Page, done: Path) -> None:
    assert "<moved>" not in _html(done)
    assert build.ODD in page.cells


def test_no_folder_of_the_machine_is_on_the_page(done: Path) -> None:
    assert str(done.parent) not in _html(done)
    assert str(Path.home()) not in _html(done)


def test_the_worst_cases_come_first_and_say_their_slice(done: Path) -> None:
    rows = (done / f"benchmark_charts_{build.STAMP}" / "worst_empty.csv").read_text(encoding="utf-8")
    # the primary and both nodes are missed; node 1 is the larger in a slice: slices 5 to 8, its middle is 6
    assert rows.splitlines() == ["case_id,dice_GTVn,slice,slices"] + [f"case_{n},0.0,6,24" for n in range(3)]


def test_without_labels_of_ene_it_says_so(out: Path, undrawn: None) -> None:
    def unlabelled(summary: dict[str, Any]) -> None:
        summary["models"][0]["classification"] = None
        summary["data"].update(nodes_labelled=0, nodes_ene=0)

    build.change(out, unlabelled)
    html = _html(write_report(out).parent)
    assert "give --ene-csv" in html
    assert "roc_on_truth" not in html


@pytest.mark.slow
def test_one_case_gives_a_report_that_says_what_that_means(tmp_path: Path) -> None:
    out = build.finished(tmp_path, ["only"], ("perfect", "empty"))
    html = _html(write_report(out).parent)
    assert "There is only one case" in html
    assert "whatever the models are like, no difference" in html


def test_one_model_gives_a_report_without_comparison_and_order(tmp_path: Path, undrawn: None) -> None:
    out = build.finished(tmp_path, build.NAMES[:2], ("perfect",))
    html = _html(write_report(out).parent)
    assert "nothing was compared with a reference" in html
    assert "the models cannot be ranked" in html


def test_no_model_that_could_be_run_gives_a_report_of_reasons(out: Path) -> None:
    def failed(summary: dict[str, Any]) -> None:
        summary["models"] = [
            {
                "name": n,
                "key": n,
                "kind": "bundle",
                "source": n,
                "status": "failed",
                "reason": f"{n} is gone.",
            }
            for n in ("a", "b")
        ]
        summary.update(comparisons=[], pairs=[], ranking=[], primary={}, reference=None)

    build.change(out, failed)
    html = _html(write_report(out).parent)
    assert "No model could be run" in html
    assert "a is gone." in html
    assert not (out / f"benchmark_charts_{build.STAMP}").exists()


def test_all_cases_failed_gives_a_report_of_reasons(out: Path) -> None:
    def failed(summary: dict[str, Any]) -> None:
        for model in summary["models"]:
            model.update(segmentation=None, aggregated_dice=None, detection=None, classification=None)
        summary["pairing"]["refused"] = [{"case_id": "case_0", "reason": "it is cut off."}]
        summary["data"].update(cases=0, patients=0, nodes=0, nodes_labelled=0, labels=[], case_ids=[])
        summary.update(comparisons=[], ranking=[])

    build.change(out, failed)
    html = _html(write_report(out).parent)
    assert "No case could be used" in html
    assert "it is cut off." in html


@pytest.mark.slow
def test_lost_masks_and_cts_are_said(out: Path) -> None:
    (out / "work" / "models" / "perfect" / "case_0.labels.nii.gz").unlink()
    listed = json.loads((out / "work" / "cases.json").read_text(encoding="utf-8"))
    for case in listed["cases"]:
        case["image"] = "/gone/away.nii.gz"
    (out / "work" / "cases.json").write_text(json.dumps(listed), encoding="utf-8")
    html = _html(write_report(out).parent)
    assert "case_0: its masks no longer exist." in html
    assert "its file can no longer be read" in html


def test_damaged_masks_are_said(out: Path, undrawn: None) -> None:
    (out / "work" / "models" / "perfect" / "case_0.labels.nii.gz").write_bytes(b"no image")
    assert "case_0.labels.nii.gz: " in _html(write_report(out).parent)


@pytest.mark.slow
def test_a_lost_csv_is_said(out: Path, undrawn: None) -> None:
    (out / f"benchmark_results_{build.STAMP}.csv").unlink()
    html = _html(write_report(out).parent)
    assert "The results CSV no longer exists" in html
    assert "/dice_gtvn.png" not in html
    assert "froc.png" in html


@pytest.mark.parametrize(
    "lost",
    [
        "comparisons",
        "pairs",
        "primary",
        "ranking",
        "pairing",
        "ene_csv",
        "reference",
        "files",
        "created",
        "aiene",
    ],
)
def test_a_summary_without_a_part_still_gives_a_report(out: Path, lost: str, undrawn: None) -> None:
    build.change(out, lambda summary: summary.pop(lost))
    assert write_report(out).is_file()


@pytest.mark.parametrize("lost", ["models", "data", "machine", "settings", "format"])
def test_what_is_no_summary_is_refused_in_one_sentence(out: Path, lost: str) -> None:
    build.change(out, lambda summary: summary.pop(lost))
    with pytest.raises(InputError, match="run the benchmark again"):
        write_report(out)


def test_an_empty_folder_and_a_broken_summary_are_refused(tmp_path: Path, out: Path) -> None:
    with pytest.raises(InputError, match="benchmark_summary"):
        write_report(tmp_path)
    build.summary_file(out).write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        write_report(out)


def test_figures_that_are_missing_are_dashes_with_their_reason(out: Path, undrawn: None) -> None:
    def without(summary: dict[str, Any]) -> None:
        nothing = {"value": None, "low": None, "high": None, "reason": "for want of cases", "n": 0}
        summary["models"][0]["segmentation"]["GTVn"]["dice"]["mean"] = nothing
        summary["models"][2]["segmentation"]["GTVn"]["dice"]["mean"] = nothing
        del summary["models"][0]["resources"]["seconds"]

    build.change(out, without)
    assert "Dice GTVn of perfect, empty: for want of cases." in _html(write_report(out).parent)


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_one_sentence(out: Path) -> None:
    (out / f"benchmark_charts_{build.STAMP}").write_text("in the way", encoding="utf-8")
    with pytest.raises(OutputError, match="in the way"):
        write_report(out)


def test_the_report_is_not_what_makes_help_slow() -> None:
    code = "import sys, aiene.benchmark.report; print({'matplotlib', 'jinja2', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"


def test_ranks_need_two_models_and_many_have_room() -> None:
    assert rank_stability({"models": [{"model": "a", "rank": 1, "share_by_rank": [1.0]}]}) is None
    models = [{"model": f"m{n}" * 20, "rank": n + 1, "share_by_rank": [1 / 12] * 12} for n in range(12)]
    chart = rank_stability({"metric": "dice", "label": "GTVn", "models": models, "resamples": 10})
    assert isinstance(chart, Figure)
    assert len(figure_csv(chart).splitlines()) == 13


_BLANK = render(
    rank_stability(  # type: ignore[arg-type]
        {"models": [{"model": n, "rank": 1, "share_by_rank": [0.5, 0.5]} for n in "ab"], "resamples": 1}
    )
)
