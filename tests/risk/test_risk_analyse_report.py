"""The report: the same on each run, one truth for all numbers, nothing in silence."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from aiene.report.document import Column, Figure
from aiene.report.formatting import cell_text
from aiene.report.style import render
from aiene.risk.analyse.charts.bars import draw_bars
from aiene.risk.analyse.charts.curves import draw_curves
from aiene.risk.analyse.charts.forest import draw_dose, draw_forest
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.analyse.run import analyse
from aiene.risk.schemes.scheme import read_scheme
from builders.risk_cohorts import SCHEME, drawn

pytestmark = pytest.mark.slow

SETTINGS = AnalysisSettings(bootstraps=4, jobs=1, date="1 April 2026", marker_cap=3)


def run(table: Any, out: Any, *, endpoints: tuple[str, ...] = ("os", "dc"), settings: Any = SETTINGS) -> Any:
    return analyse(table, endpoints=endpoints, scheme=read_scheme(SCHEME), out=out, settings=settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("analysis")
    table = drawn(ai_ene_source="simulated")
    table.loc[:9, "m"] = "M1"
    table.loc[10:14, "n_ai_ene"] = None
    table.loc[15:21, "site"] = "larynx"
    return run(table, out), out


@pytest.fixture(scope="module")
def numbers(made: Any) -> Any:
    def refuse(word: Any) -> None:
        raise AssertionError(f"{word} in analysis.json")

    return json.loads((made[1] / "analysis.json").read_text(), parse_constant=refuse)


class Page(HTMLParser):
    """The cells of each table and the running text, drawings and style left out."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.tables: dict[str, list[Any]] = {}
        self.text: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self._name: Any = None
        self._cell: Any = None
        self._row: Any = None
        self._quiet = 0
        self.feed(text)

    def handle_starttag(self, tag: Any, attrs: Any) -> None:
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.add(attrs["id"])
        self.links.append(attrs.get("href", "") if tag == "a" else "")
        self._quiet += tag in ("svg", "style")
        if attrs.get("id", "").startswith("tab-"):
            self._name = attrs["id"].removeprefix("tab-")
            self.tables[self._name] = []
        if tag == "tr":
            self._row = []
        if tag == "td":
            self._cell = ""

    def handle_endtag(self, tag: Any) -> None:
        self._quiet -= tag in ("svg", "style")
        if tag == "td":
            self._row.append(self._cell)
            self._cell = None
        if tag == "tr" and self._row and self._name:
            self.tables[self._name].append(self._row)
        if tag == "table":
            self._name = None

    def handle_data(self, data: Any) -> None:
        if self._quiet:
            return
        if self._cell is not None:
            self._cell += data
        elif data.strip():
            self.text.append(data.strip())


@pytest.fixture(scope="module")
def page(made: Any) -> Any:
    return Page((made[1] / "report.html").read_text())


def test_every_cell_of_the_page_is_a_number_of_the_json(page: Any, numbers: Any) -> None:
    assert set(page.tables) == set(numbers["tables"])
    for name, table in numbers["tables"].items():
        columns = [Column(**c) for c in table["columns"]]
        columns = [c for c in columns if any(r.get(c.key) not in (None, "") for r in table["rows"])]
        assert len(page.tables[name]) == len(table["rows"])
        for cells, row in zip(page.tables[name], table["rows"], strict=True):
            wanted = [cell_text(row, c) for c in columns]
            assert [c for c in zip(cells, wanted, strict=True) if c[0] not in ("", c[1])] == []


def test_every_number_in_the_running_text_is_in_the_json(page: Any, numbers: Any) -> None:
    strings = " ".join(_strings(numbers))
    for text in page.text:
        for number in re.findall(r"\d+(?:\.\d+)?", text):
            assert number in strings, text


def _strings(value: Any) -> Any:
    if isinstance(value, dict):
        return [s for k, v in value.items() for s in (k, *_strings(v))]
    if isinstance(value, list):
        return [s for v in value for s in _strings(v)]
    return [str(value)]


def test_the_flow_adds_up(numbers: Any, made: Any) -> None:
    steps = [r for r in numbers["tables"]["flow"]["rows"] if r["left"] is not None]
    at = 240
    for row in steps:
        at -= row["left"]
        assert row["remaining"] == at
    assert at == 240 - 10 - 5 - 7
    with (made[1] / "excluded.csv").open() as stream:
        gone = [r for r in csv.DictReader(stream) if not r["step"].startswith("endpoint")]
    assert len(gone) == 22
    assert len({r["patient_id"] for r in gone}) == 22


def test_simulated_stands_in_every_output(made: Any) -> None:
    analysis, out = made
    assert analysis.simulated
    assert "SIMULATED" in (out / "report.html").read_text()
    assert "SIMULATED" in (out / "methods.txt").read_text()
    assert json.loads((out / "analysis.json").read_text())["simulated"] is True
    for svg in (out / "figures").glob("*.svg"):
        assert "SIMULATED" in svg.read_text(), svg.name
        assert "SIMULATED" in svg.with_suffix(".txt").read_text(), svg.name
    for table in (*(out / "tables").glob("*.csv"), *(out / "figures").glob("*.csv")):
        assert table.read_text().splitlines()[0].endswith("ai_ene_source"), table.name


def test_a_measured_count_is_never_called_simulated(tmp_path: Path) -> None:
    settings = AnalysisSettings(bootstraps=0, jobs=1, hpv_strata=False, covariates=("age",))
    run(drawn(60), tmp_path, endpoints=("os",), settings=settings)
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.suffix != ".png":
            assert "simulated ai-ene" not in file.read_text().lower(), file.name


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    table = drawn(70)
    settings = AnalysisSettings(bootstraps=3, jobs=1, hpv_strata=False, covariates=("hpv",))
    digests = []
    for name in ("first", "second"):
        run(table, tmp_path / name, endpoints=("dc",), settings=settings)
        files = sorted(f for f in (tmp_path / name).rglob("*") if f.is_file())
        digests.append([(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files])
    assert digests[0] == digests[1]


def test_the_page_needs_nothing_from_outside(made: Any, page: Any) -> None:
    text = (made[1] / "report.html").read_text()
    assert not re.findall(r'(?:src|xlink:href|href)="(?:https?:)?//', text)
    assert "<script" not in text
    assert "@import" not in text
    for link in page.links:
        if (link or "").startswith("#"):
            assert link[1:] in page.ids, link
        elif link and not link.startswith("#"):
            assert (made[1] / link).exists(), link


def test_every_figure_has_its_files_and_says_what_it_shows(made: Any, numbers: Any) -> None:
    assert numbers["figures"]
    for name, figure in numbers["figures"].items():
        for ending in ("svg", "png", "csv", "txt"):
            assert (made[1] / "figures" / f"{name}.{ending}").stat().st_size > 0
        assert re.search(r"\d", figure["legend"]), name
        lengths = {len(column) for column in figure["data"].values()}
        assert len(lengths) == 1, name
    curves = [f for f in numbers["figures"].values() if list(f["data"])[:3] == ["panel", "curve", "time"]]
    assert curves
    for figure in curves:
        assert all(w in figure["legend"] for w in ("n = ", "events = ", "95% intervals", "p "))


def test_no_two_texts_of_a_figure_overlap(made: Any) -> None:
    import matplotlib as mpl

    from aiene.report.style import STYLE

    with mpl.rc_context(fname=STYLE):
        for name, figure in made[0].figures.items():
            drawing = figure.draw()
            assert _overlaps(drawing) == [], name


def _overlaps(drawing: Any) -> Any:
    from matplotlib.text import Text

    drawing.canvas.draw()
    boxes, unseen = [], _ticks_outside(drawing)
    for text in drawing.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in unseen:
            box = text.get_window_extent()
            if box.width > 1:
                boxes.append((text.get_text(), box.padded(-1.0)))
    return [
        (a, b)
        for i, (a, first) in enumerate(boxes)
        for b, second in boxes[i + 1 :]
        if first.overlaps(second) and a != b
    ]


def _ticks_outside(drawing: Any) -> Any:
    """Labels that the library keeps and does not draw."""
    unseen = set()
    for axes in drawing.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high or not axes.axison:
                    unseen |= {tick.label1, tick.label2}
    return unseen


def test_axes_of_curves_start_at_zero_and_carry_an_aligned_risk_table(made: Any) -> None:
    for figure in made[0].figures.values():
        if figure.draw.func is draw_curves:
            drawing = figure.draw()
            plots, risks = drawing.axes[0::2], drawing.axes[1::2]
            for plot, risk in zip(plots, risks, strict=True):
                assert plot.get_ylim()[0] == plot.get_xlim()[0] == 0
                assert plot.get_xlim() == risk.get_xlim()
                assert plot.get_position().x0 == risk.get_position().x0
                assert plot.get_position().x1 == risk.get_position().x1


def test_groups_differ_in_dashes_and_markers_not_in_colour_alone() -> None:
    from aiene.report.style import look

    for part in ("dashes", "marker", "hatch", "colour"):
        assert len({str(getattr(look(number), part)) for number in range(7)}) == 7


def _figure(draw: Any, content: Any) -> Any:
    return Figure("name", "title", "legend", partial(draw, content), {})


def test_a_drawing_carries_no_date_and_no_program() -> None:
    content = {
        "labels": ["0"],
        "series": [{"label": "a", "value": [1.0], "count": [3]}],
        "x_label": "",
        "y_label": "",
    }
    first, second = (render(_figure(draw_bars, content)) for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first.svg
    assert b"Software" not in first.png


def test_checklists_point_into_the_page_or_to_the_authors(page: Any, numbers: Any) -> None:
    assert len(numbers["checklists"]["REMARK"]) == 20
    assert len(numbers["checklists"]["TRIPOD+AI"]) == 27
    for rows in numbers["checklists"].values():
        for row in rows:
            assert row["found"] == "" or row["anchor"] in page.ids


def test_methods_name_versions_settings_and_the_scheme(made: Any, numbers: Any) -> None:
    methods = numbers["methods"]
    for word in ("lifelines", "comprisk", "seed 20260101", SCHEME, "Efron", "Aalen-Johansen", "4 bootstrap"):
        assert word in methods


def test_old_and_new_are_compared_on_the_same_patients(numbers: Any) -> None:
    rows = numbers["tables"]["c_os"]["rows"]
    assert all(0 <= row["lower"] <= row["upper"] <= 1 for row in rows)
    models = {r["key"] for r in rows if r["contest"] == "base"}
    assert models - {"relearned"} == {"old", "new", "groups"}
    apparent = {(r["population"], r["contest"], r["key"]): r["c"] for r in rows if r["kind"] == "Harrell"}
    for row in numbers["tables"]["optimism_os"]["rows"]:
        if row["key"].startswith("c "):
            key = (row["population"], row["contest"], row["key"].split()[1])
            assert row["apparent"] == pytest.approx(apparent[key], abs=1e-9)
            assert row["corrected"] == pytest.approx(row["apparent"] - row["optimism"])


def test_an_interval_with_an_open_end_is_drawn_as_an_arrow_and_not_a_crash() -> None:
    from aiene.report.style import render

    row = {"label": "T4", "head": False, "value": 9.0, "low": 1.2, "high": None, "text": "9.00", "look": 0}
    forest = {"rows": [row], "x_label": "HR", "heading": "HR", "looks": []}
    assert render(_figure(draw_forest, forest)).png
    dose = {
        "points": {"x": [0, 1], "value": [1.0, 4.0], "low": [1.0, None], "high": [1.0, None], "n": [5, 5]},
        "line": {"x": [0.0, 1.0], "value": [1.0, 4.0], "low": [1.0, None], "high": [1.0, 8.0]},
        "labels": ["0", "1"], "x_label": "n", "y_label": "HR", "line_label": "line", "point_label": "points",
    }  # fmt: skip
    assert render(_figure(draw_dose, dose)).png
