"""The page as a reviewer meets it: key results first, the rest folded away, everything numbered."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiene.report.document import Column, Figure, Fold, Section, Table
from aiene.report.style import Picture
from aiene.report.write import page
from aiene.risk.analyse.cohort import Outcome, make_cohort
from aiene.risk.analyse.descriptives import table_one
from aiene.risk.analyse.grouping import Stratum, make_groupings
from aiene.risk.analyse.output import laid_out, numbered, places
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.analyse.regression import cox_part, make_sample
from aiene.risk.analyse.run import analyse
from aiene.risk.analyse.survival import FEWEST_AT_RISK, cut, survival_part
from aiene.risk.analyse.text import key_results
from aiene.risk.schemes.scheme import read_scheme
from builders.risk_cohorts import SCHEME, drawn

SETTINGS = AnalysisSettings(bootstraps=0, jobs=1)
TABLE = drawn(300, smoking_status="never", treatment="crt")
COHORT = make_cohort(TABLE, SETTINGS)
GROUPINGS = make_groupings(COHORT.table, read_scheme(SCHEME))


def table(name: Any, **row: Any) -> Any:
    return Table(name, name.title(), (Column("a", "A"),), ({"a": "x", **row},))


def outcome() -> Any:
    time, event = COHORT.table["os_time"].to_numpy(float), COHORT.table["os_event"].to_numpy(int)
    return Outcome("os", np.arange(time.size), time, event, event)


def test_the_file_of_report_items_holds_what_is_used_and_nothing_else() -> None:
    folder = resources.files("aiene.risk.analyse")
    items = tomllib.loads((folder / "report_items.toml").read_text(encoding="utf-8"))
    kinds = {*items["table"], *items["figure"], *items["text"]}
    code = "".join(f.read_text(encoding="utf-8") for f in Path(str(folder)).parent.rglob("*.py"))
    unnamed = {k for k in kinds if f'"{k.removeprefix("added_")}"' not in code}
    assert unnamed == {"derived_split", "derived_nested"}  # by the setting of that name
    for entry in items["table"].values():
        assert {c for c in entry["columns"] if isinstance(c, str)} <= set(items["shared"])


def test_key_results_are_read_off_the_tables_that_hold_them() -> None:
    cox = table("cox_os_all", column="n_ai_ene", adj_n=90, adj_events=30, adj_hr=1.5, adj_lower=1.1,
                adj_upper=2.0, adj_p=0.01)  # fmt: skip
    gain = table("optimism_os", population="All patients", contest="base", key="delta new", corrected=0.04,
                 lower=0.01, upper=0.07, comparison="RTOG-0129")  # fmt: skip
    test = table("interaction", endpoint="Overall survival", ratio=0.9, p=0.4)
    found = key_results([Section("x", "X", (cox, gain, test))], ("os",), SETTINGS)
    row = found.tables[0].rows[0]
    assert (row["n"], row["events"], row["hr"], row["hr_lower"], row["hr_p"]) == (90, 30, 1.5, 1.1, 0.01)
    assert (row["gain_base"], row["base_lower"], row["ratio"], row["ratio_p"]) == (0.04, 0.01, 0.9, 0.4)
    assert row["gain"] is None
    assert found.boxed
    assert "RTOG-0129" in found.tables[0].columns[6].title


def test_what_is_not_needed_at_once_is_folded_and_nothing_is_lost() -> None:
    items = (table("cox_os_all"), table("cox_os_hpv_positive"), table("forms_os_all"))
    (section,) = laid_out([Section("os-cox", "Regression", items)])
    assert section.items[0] == items[0]
    fold = section.items[1]
    assert isinstance(fold, Fold)
    assert fold.items == items[1:]
    assert fold.title == "Regression: 2 tables more"
    (same,) = laid_out([Section("derived", "Derived", items)])
    assert same.items == items


def test_numbers_of_tables_and_the_places_that_a_checklist_names() -> None:
    sections = laid_out([Section("os-cox", "Regression", (table("cox_os_all"), table("forms_os_all")))])
    found, labels = numbered(sections)
    assert found[0].title == "1. Regression"
    assert found[0].items[0].title == "Table 1. Cox_Os_All"  # type: ignore[union-attr]
    assert labels == {"os-cox": "Section 1", "tab-cox_os_all": "Table 1", "tab-forms_os_all": "Table S1"}
    row = {"anchor": "os-cox", "shows": ["tab-forms_os_all", "tab-not-there"]}
    assert places(row, labels) == [("Section 1", "os-cox"), ("Table S1", "tab-forms_os_all")]


def test_a_fold_is_closed_and_on_the_page() -> None:
    from aiene.report.document import Document

    hidden = Fold("Two tables more", (table("inside"),))
    document = Document("T", "", "N", (Section("s", "S", (table("outside"), hidden)),))
    text = page(document, {}, figures="figures", tables="tables")
    assert text.index("tab-outside") < text.index("<details>") < text.index("tab-inside")
    assert "<details open" not in text


def test_a_curve_ends_where_fewer_than_ten_are_at_risk() -> None:
    time = np.arange(1.0, 31.0)
    curve = {"time": [0.0, 5, 20, 28], "value": [1.0, 0.9, 0.5, 0.1], "low": [1.0] * 4, "high": [1.0] * 4}
    drawn_curve = cut(curve, time)
    last = drawn_curve["time"][-1]
    assert (time >= last).sum() == FEWEST_AT_RISK
    assert drawn_curve["time"] == [0.0, 5, 20, 21]
    assert drawn_curve["value"] == [1.0, 0.9, 0.5, 0.5]
    few = cut(curve, time[:9])
    assert few["time"] == curve["time"]
    assert few["band"] is False


def test_panels_say_hazard_ratio_and_number_censored_and_the_csv_keeps_the_whole_curve() -> None:
    stratum = Stratum("all", "All patients", outcome(), GROUPINGS.marker.rank(COHORT.table), GROUPINGS.marker)
    part = survival_part([stratum], SETTINGS)
    figure = next(i for i in part.items if isinstance(i, Figure))
    panel = figure.draw.args[0]["panels"][0]  # type: ignore[attr-defined]
    assert panel["curves"][0]["label"].endswith(": HR 1")
    assert " to " in panel["curves"][1]["label"]
    censored = panel["risk"]["censored"]
    for rank, row, time in zip(stratum.present, censored, [panel["risk"]["times"]] * 3, strict=True):
        own = stratum.of(rank)
        assert row == [int(((own.time < t) & (own.event == 0)).sum()) for t in time]
    assert f"censored = {stratum.outcome.n - stratum.outcome.n_events}" in figure.legend
    assert max(figure.data["time"]) > max(t for c in panel["curves"] for t in c["time"])


def test_table_one_is_in_clinical_order_with_words_and_standardised_differences() -> None:
    rows = table_one(COHORT, GROUPINGS.marker).rows
    order = list(dict.fromkeys(r["characteristic"] for r in rows))
    wanted = ["Patients", "Age, years", "Sex", "Pack-years", "Smoking", "HPV", "T, edition 7", "N, edition 7"]
    assert [c for c in order if c in wanted] == wanted
    assert order.index("RTOG-0129") < order.index("Treatment") < order.index("AI-ENE nodes")
    of = {c: [r["level"] for r in rows if r["characteristic"] == c] for c in order}
    assert of["Treatment"] == ["Chemoradiotherapy"]
    assert of["T, edition 7"] == ["T1", "T2", "T3", "T4a"]
    assert of["RTOG-0129"][:3] == ["Low risk", "Intermediate risk", "High risk"]
    assert of["AI-ENE class"] == ["0", "1", "≥ 2"]
    first = {c: next(r for r in rows if r["characteristic"] == c) for c in order}
    assert first["AI-ENE nodes"]["smd"] > 1
    assert first["Smoking"]["smd"] == 0


@pytest.mark.slow
def test_the_forest_has_references_patients_events_and_the_edition() -> None:
    sample = make_sample("all", "All patients", COHORT.table, outcome(), ("hpv", "t", "age"))
    figure = next(i for i in cox_part(sample, SETTINGS).items if isinstance(i, Figure))
    rows = {r["label"]: r for r in figure.draw.args[0]["rows"]}  # type: ignore[attr-defined]
    reference = rows["T, edition 7: T0-T2 (reference)"]
    assert (reference["value"], reference["low"]) == (1.0, None)
    complete = sample.complete()[0]
    known = sample.table.loc[sample.design.complete]
    early = known["t7"].isin(["T1", "T2"]).to_numpy()
    assert (reference["n"], reference["events"]) == (early.sum(), complete.event[early].sum())
    assert rows["Age, per 10 years"]["n"] == complete.n
    assert (
        sum(rows[f"T, edition 7: {level}"]["n"] for level in ("T0-T2 (reference)", "T3", "T4")) == complete.n
    )
    assert len(figure.data["n"]) == len(figure.data["hr"])


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("pdfinfo") and shutil.which("pdftotext")),
    reason="needs chromium, poppler",
)
def test_four_endpoints_print_in_under_thirty_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import aiene.risk.analyse.output as output

    blank = (
        b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 380"><rect width="9" height="9"/></svg>'
    )
    monkeypatch.setattr(
        output, "draw_figures", lambda figures, **_: {f.name: Picture(blank, b"") for f in figures}
    )
    monkeypatch.setattr(output, "write_figures", lambda *_: None)
    scheme = read_scheme(SCHEME)
    settings = AnalysisSettings(bootstraps=2, jobs=1)
    analyse(
        drawn(260),
        endpoints=("os", "dc", "lrc", "dmfs"),
        scheme=scheme,
        out=tmp_path / "o",
        settings=settings,
    )
    subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--print-to-pdf={tmp_path}/p.pdf",
         f"file://{tmp_path}/o/report.html"], check=True, capture_output=True,
    )  # fmt: skip
    told = subprocess.run(["pdfinfo", tmp_path / "p.pdf"], check=True, capture_output=True, text=True).stdout
    text = subprocess.run(
        ["pdftotext", tmp_path / "p.pdf", "-"], check=True, capture_output=True, text=True
    ).stdout
    assert "HR per AI-ENE node, adjusted" in " ".join(text[:1500].split())  # on the first page
    assert "restricted cubic spline, 3 knots" not in text  # of a table that is folded away
    for printed in text.split("\f")[:-1]:  # the checklists name sections: their number heads every page
        assert re.search(r"^\d+\. [A-Z]", printed, flags=re.MULTILINE), printed[:300]
    pages = int(next(line for line in told.splitlines() if line.startswith("Pages")).split()[1])
    assert 8 <= pages < 30
