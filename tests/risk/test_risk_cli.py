"""`aiene risk` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from aiene.cli import risk
from aiene.cli.app import app
from aiene.risk.simulate.cohort import simulate_cohort
from aiene.risk.table.files import write_table
from aiene.risk.table.read import read_table

COHORT = simulate_cohort(60, seed=4)
BARE = COHORT.drop(columns=["n_ai_ene", "n_ai_nodes", "ai_model", "ai_ene_source"])


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    write_table(BARE, tmp_path / "cohort.csv")
    run = pd.DataFrame(
        {
            "case_id": BARE["patient_id"] + "_ct",
            "status": "ok",
            "n_ai_ene": COHORT["n_ai_ene"],
            "n_ai_nodes": 3,
        }
    )
    (tmp_path / "run").mkdir()
    run.to_csv(tmp_path / "run" / "patients.csv", index=False)

    def call(*words: Any, code: Any = 0) -> Any:
        result = CliRunner().invoke(app, ["risk", *(str(w) for w in words)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return call


def test_stage_writes_every_step_and_how_it_came_about(cli: Any, tmp_path: Path) -> None:
    result = cli("stage", "cohort.csv", "-o", "out/staged.csv")
    table = pd.read_csv(tmp_path / "out" / "staged.csv", dtype=str)
    assert len(table) == 60
    for name in (
        "row",
        "ajcc8_stage",
        "ajcc8_stage_row",
        "ajcc8_stage_reason",
        "rtog0129_ang2010",
        "v9_stage",
    ):
        assert name in table
    record = json.loads((tmp_path / "out" / "staged.json").read_text())
    assert record["research_only"] == "Research software, not a medical device."
    assert record["simulated"] is False
    assert sum(record["counts"]["rtog0129"].values()) == 60
    assert "Research software, not a medical device." in result.stderr


@pytest.mark.slow
def test_a_staged_table_can_be_staged_again(cli: Any, tmp_path: Path) -> None:
    cli("stage", "cohort.csv", "-o", "a.csv")
    cli("stage", "a.csv", "-o", "b.csv")
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


@pytest.mark.slow
def test_stratify_joins_and_ends_with_0_where_every_patient_has_a_partner(cli: Any, tmp_path: Path) -> None:
    result = cli(
        "stratify",
        "cohort.csv",
        "--ai-ene",
        "run",
        "--id-pattern",
        "^(.+)_ct$",
        "--scheme",
        "rtog0129-plus-count",
        "-o",
        "g.csv",
    )
    table = pd.read_csv(tmp_path / "g.csv", dtype=str)
    assert set(table["combined_group"]) <= {"low", "intermediate", "high", "very high"}
    assert table["ai_ene_source"].unique().tolist() == ["measured"]
    assert "60 patients matched" in result.stderr
    record = json.loads((tmp_path / "g.json").read_text())
    assert record["scheme"]["sha256"] in result.stdout
    assert record["join"]["matched"] == 60


def test_patients_without_a_partner_are_named_and_the_command_ends_with_1(cli: Any, tmp_path: Path) -> None:
    run = pd.read_csv(tmp_path / "run" / "patients.csv").iloc[2:]
    extra = pd.DataFrame({"case_id": ["stranger_ct"], "status": ["ok"], "n_ai_ene": [1], "n_ai_nodes": [1]})
    pd.concat([run, extra]).to_csv(tmp_path / "run" / "patients.csv", index=False)
    result = cli(
        "stratify",
        "cohort.csv",
        "--ai-ene",
        "run/patients.csv",
        "--id-pattern",
        "^(.+)_ct$",
        "-o",
        "g.csv",
        code=1,
    )
    assert "2 only in the table: SIM-01, SIM-02" in result.stderr
    assert "1 only in the run: stranger" in result.stderr


@pytest.mark.slow
def test_a_simulated_count_is_marked_in_every_output(cli: Any, tmp_path: Path) -> None:
    first = cli("simulate", "--onto", "cohort.csv", "--hr", "2", "-o", "planted.csv")
    assert "SIMULATED" in first.stderr
    assert json.loads((tmp_path / "planted.json").read_text())["simulated"] is True
    for words in (("stage", "planted.csv", "-o", "s.csv"), ("stratify", "planted.csv", "-o", "g.xlsx")):
        result = cli(*words)
        assert "SIMULATED" in result.stderr
        record = json.loads((tmp_path / words[-1]).with_suffix(".json").read_text())
        assert record["SIMULATED"].startswith("SIMULATED")
    assert (read_table(tmp_path / "g.xlsx")["ai_ene_source"] == "simulated").all()


@pytest.mark.slow
def test_simulate_makes_a_cohort_and_says_its_power(cli: Any, tmp_path: Path) -> None:
    result = cli(
        "simulate",
        "--n",
        400,
        "--hr",
        "1.4",
        "--event-rate",
        "0.15",
        "--effect",
        "hpv_negative=2",
        "--effect",
        "os.t4=3",
        "--effect",
        "hpv_missing=0.1",
        "-o",
        "c.csv",
    )
    assert "60 expected events" in result.stdout
    assert "80 % needs" in result.stdout
    record = json.loads((tmp_path / "c.json").read_text())
    assert record["planted"]["dm"]["n_ai_ene"] == 1.4
    assert record["planted"]["os"]["t4"] == 3
    assert record["planted"]["lrf"]["hpv_negative"] == 2
    assert record["planted"]["hpv_missing"] == 0.1
    assert record["events"]["dm"] == 60
    assert read_table(tmp_path / "c.csv")["hpv"].isna().sum() > 10


@pytest.mark.slow
def test_json_on_stdout_is_json_alone(cli: Any) -> None:
    for words in (
        ("stage", "cohort.csv"),
        ("simulate", "--n", 50),
        ("import", "cohort.csv", "--from", "canonical"),
    ):
        content = json.loads(cli(*words, "--json").stdout)
        assert content["research_only"]


def test_import_shows_what_was_understood_and_writes_it(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("ID,Days,Dead\n1,365.25,yes\n2,730.5,no\n")
    (tmp_path / "m.toml").write_text(
        'unit = "days"\norigin = "diagnosis"\n[columns]\npatient_id = "ID"\nos_time = "Days"\n'
        'os_event = "Dead"\n[constants]\nsite = "oropharynx"\n'
    )
    result = cli("import", "own.csv", "--map", "m.toml", "-o", "c.csv")
    assert "days / 365.25 = years" in result.stdout
    assert "note: os_event: no, yes read as 0 (censored) or 1 (happened)" in result.stderr
    table = read_table(tmp_path / "c.csv")
    assert table["os_time"].tolist() == [1.0, 2.0]
    assert json.loads((tmp_path / "c.json").read_text())["provenance"]["mapping_sha256"]


def test_template_writes_a_mapping_and_never_over_one(cli: Any, tmp_path: Path) -> None:
    cli("import", "cohort.csv", "--template", "m.toml")
    assert 'patient_id = "patient_id"' in (tmp_path / "m.toml").read_text()
    result = cli("import", "--template", "m.toml", code=1)
    assert "it exists already" in result.stderr


@pytest.mark.slow
def test_the_own_table_round_trip_by_template(cli: Any) -> None:
    cli("import", "cohort.csv", "--template", "m.toml")
    cli("stage", "cohort.csv", "--map", "m.toml", code=2)  # the unit of the times is not stated
    result = cli("stage", "cohort.csv", "--map", "m.toml", code=2)
    assert "not guessed" in result.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("import",), "no table"),
        (("import", "cohort.csv"), "needs a mapping file"),
        (("stage", "none.csv"), "no such file"),
        (("stage", "cohort.csv", "--from", "seer"), "no such source"),
        (("stage", "cohort.csv", "--map", "none.toml"), "it cannot be read"),
        (("stratify", "cohort.csv"), "has no n_ai_ene"),
        (("stratify", "cohort.csv", "--ai-ene", "run"), "no patient of the table is in it"),
        (("stratify", "cohort.csv", "--ai-ene", "nowhere"), "no such file"),
        (("stratify", "cohort.csv", "--scheme", "jco"), "no such scheme"),
        (("stratify", "cohort.csv", "--id-pattern", "x"), "--id-pattern belongs to --ai-ene"),
        (("simulate", "--effect", "t4"), "write name=number"),
        (("simulate", "--effect", "stage=2"), "no such effect"),
        (("simulate", "--effect", "dm.stage=2"), "no such effect"),
        (("simulate", "--hr", "-1"), "hazard ratio"),
        (("simulate", "--event-rate", "2"), "between 0 and 1"),
        (("simulate", "--onto", "cohort.csv", "--event-rate", "0.2"), "--onto keeps the real outcomes"),
        (("stage", "cohort.csv", "-o", "out.sav"), "written as .csv"),
    ],
)
def test_wrong_use_is_one_sentence_and_ends_with_2(cli: Any, words: Any, part: str) -> None:
    result = cli(*words, code=2)
    assert part in result.stderr
    assert result.stderr.count("aiene: ") == 1
    assert "Traceback" not in result.output


def test_lenient_drops_are_told_and_the_command_ends_with_1(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text(
        "patient_id,site,os_time,os_event\na,oropharynx,-1,1\nb,oropharynx,2,0\n"
    )
    assert "os_time is negative (-1) in row 1" in cli("stage", "odd.csv", code=2).stderr
    result = cli("stage", "odd.csv", "--lenient", "-o", "o.csv", code=1)
    assert "counted as missing" in result.stderr


@pytest.mark.slow
def test_a_cohort_of_5_patients_is_staged_and_stratified(cli: Any, tmp_path: Path) -> None:
    write_table(COHORT.head(5), tmp_path / "five.csv")
    cli("stage", "five.csv", "-o", "s.csv")
    cli("stratify", "five.csv", "-o", "g.csv")
    assert len(pd.read_csv(tmp_path / "g.csv")) == 5


def test_analyse_hands_everything_to_the_analysis(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import aiene.risk.analyse.run as package
    from aiene.parallel import Progress
    from aiene.risk.analyse.records import Analysis

    seen: dict[Any, Any] = {}

    def analysis(table: Any, **rest: Any) -> Any:
        rest["on_progress"](Progress(1.0, 2.0, "half"))
        seen.update(rest, table=table)
        return Analysis(head={}, sections=(), warnings=("look here",))

    monkeypatch.setattr(package, "analyse", analysis)
    (tmp_path / "run" / "nodes.csv").write_text("case_id,ene\nSIM-01_ct,0.4\n")
    words = (
        "--id-pattern",
        "^(.+)_ct$",
        "--endpoint",
        "os,dc",
        "--bootstraps",
        7,
        "--site",
        "all",
        "--derive",
        "--derive-endpoint",
        "os",
    )
    result = cli(
        "analyse", "cohort.csv", "--ai-ene", "run", *words, "--covariates", "age,sex", "-o", "rep", "--json"
    )
    assert seen["endpoints"] == ["os", "dc"]
    assert (seen["settings"].bootstraps, seen["settings"].sites, seen["settings"].derive) == (7, (), "split")
    assert seen["settings"].derive_endpoint == "os"
    assert seen["settings"].covariates == ("age", "sex")
    assert seen["nodes"].to_dict("list") == {"patient_id": ["SIM-01"], "ene": [0.4]}
    assert seen["scheme"].name == "count-0-1-2plus"
    assert "combined_group" in seen["table"]
    assert "warning: look here" in result.stderr
    assert json.loads(result.stdout)["exit_code"] == 0


@pytest.mark.parametrize(
    ("words", "how"),
    [((), "no"), (("--derive",), "split"), (("--derive-how", "nested"), "nested"),
     (("--derive", "--derive-how", "nested"), "nested")],
)  # fmt: skip
def test_derive_alone_splits_and_how_may_be_said(
    cli: Any, monkeypatch: pytest.MonkeyPatch, words: Any, how: Any
) -> None:
    import aiene.risk.analyse.run as package
    from aiene.risk.analyse.records import Analysis

    seen = {}
    monkeypatch.setattr(package, "analyse", lambda _, **rest: seen.update(rest) or Analysis({}, ()))
    cli("analyse", "cohort.csv", "--ai-ene", "run", "--id-pattern", "^(.+)_ct$", "-o", "rep", *words)
    assert seen["settings"].derive == how


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--site", "throat"), "no such site"),
        (("--covariates", "shoe"), "unknown covariate"),
        ((), "has no n_ai_ene"),
    ],
)
def test_analyse_refuses_wrong_words_before_any_work(cli: Any, words: Any, part: str) -> None:
    assert part in cli("analyse", "cohort.csv", "-o", "rep", *words, code=2).stderr


def test_a_run_that_failed_for_all_is_not_taken_for_a_table_without_counts(cli: Any, tmp_path: Path) -> None:
    run = pd.read_csv(tmp_path / "run" / "patients.csv").assign(status="failed", n_ai_ene=np.nan)
    run.to_csv(tmp_path / "run" / "patients.csv", index=False)
    words = ("--ai-ene", "run/patients.csv", "--id-pattern", "^(.+)_ct$", "-o", "g.csv")
    assert "no count for any patient" in cli("stratify", "cohort.csv", *words, code=2).stderr


@pytest.mark.slow
def test_a_title_above_the_header_of_a_workbook_is_named_as_the_problem(cli: Any, tmp_path: Path) -> None:
    cohort = pd.read_csv(tmp_path / "cohort.csv", dtype=str)
    cohort.to_excel(tmp_path / "titled.xlsx", index=False, startrow=1)
    import openpyxl

    book = openpyxl.load_workbook(tmp_path / "titled.xlsx")
    book.active["A1"] = "Our cohort"
    book.active.merge_cells("A1:E1")
    book.save(tmp_path / "titled.xlsx")
    assert "first row is not a header" in cli("stage", "titled.xlsx", "-o", "s.csv", code=2).stderr


@pytest.mark.slow
def test_the_example_goes_through_every_command_that_its_list_names(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import aiene.risk.analyse.run as analysis
    from aiene.risk.analyse.records import Analysis

    monkeypatch.setattr(analysis, "analyse", lambda *_, **__: Analysis({}, ()))
    cli("example", "-o", "tables")
    run = pd.DataFrame({"case_id": ["phantom-dicom", "phantom-nifti"], "status": "ok", "n_ai_ene": [1, 2]})
    (tmp_path / "tables" / "DEMO" / "results").mkdir(parents=True)
    run.to_csv(tmp_path / "tables" / "DEMO" / "results" / "patients.csv", index=False)
    monkeypatch.chdir(tmp_path / "tables")
    lines = (tmp_path / "tables" / "README.txt").read_text().splitlines()
    commands = [line.split()[2:] for line in lines if line.startswith("    aiene risk ")]
    assert {words[0] for words in commands} == {
        command.name or command.callback.__name__  # type: ignore[union-attr]
        for command in risk.app.registered_commands  # type: ignore[union-attr]
    } - {"example"}
    for words in commands:
        if words[0] != "validate":  # it needs the model of a real analysis: tests/risk/test_risk_validate.py
            cli(*words)
    groups = pd.read_csv("demo_groups.csv", dtype=str)
    assert groups["n_ai_ene"].tolist() == ["1", "2"]
    assert (
        pd.read_csv("imported.csv")["os_event"].sum() == (pd.read_csv("own_table.csv")["Status"] == 2).sum()
    )
    assert len(pd.read_csv("other_hospital.csv")) == 250


def test_the_example_never_writes_over_files_of_the_users(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cohort.csv").write_text("mine")
    assert "not written by aiene" in cli("example", "-o", "mine", code=2).stderr
    assert (tmp_path / "mine" / "cohort.csv").read_text() == "mine"
