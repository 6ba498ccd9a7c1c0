"""The count of a run joined to a table; nobody is lost in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aiene.errors import InputError, UsageError
from aiene.risk.join import join_ai_ene, run_nodes
from aiene.risk.table.read import complete


def clinical(*ids: Any) -> Any:
    return complete(pd.DataFrame({"patient_id": list(ids), "site": "oropharynx"}))


RUN = (
    "case_id,status,n_ai_ene,n_ai_nodes,ai_model,ai_threshold\n"
    "a,ok,2,3,default,0.3\n"
    "b,no_nodes,0,0,default,0.3\n"
    "c,failed,,,default,0.3\n"
    "x,ok,1,1,default,0.3\n"
)


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def make(text: Any = RUN) -> Any:
        (tmp_path / "patients.csv").write_text(text)
        return tmp_path / "patients.csv"

    return make


def test_both_lists_of_those_without_partner_are_given(run: Any) -> None:
    made = join_ai_ene(clinical("a", "b", "c", "d", "e"), run())
    assert (made.matched, made.only_table, made.only_ai) == (3, ("d", "e"), ("x",))
    t = made.table
    assert t["n_ai_ene"].tolist() == [2, 0, pd.NA, pd.NA, pd.NA]
    assert t["ai_status"].tolist() == ["ok", "no_nodes", "failed", "no CT in the run", "no CT in the run"]
    assert t["ai_ene_source"].tolist() == ["measured", "measured", pd.NA, pd.NA, pd.NA]
    assert t["ai_threshold"].tolist()[:2] == [0.3, 0.3]
    assert len(t) == 5


def test_no_node_is_0_and_a_failed_run_is_missing_and_told(run: Any) -> None:
    made = join_ai_ene(clinical("b", "c"), run())
    assert made.table["n_ai_ene"].tolist() == [0, pd.NA]
    assert any(
        "1 patient without a count, which is not 0: the run of the CT failed" in w for w in made.warnings
    )


def test_the_folder_of_a_run_will_do(run: Any) -> None:
    assert join_ai_ene(clinical("a"), run().parent).matched == 1


@pytest.mark.parametrize("pattern", [r"^(.+)_ct$", r"^[abcx]"])
def test_a_pattern_finds_the_patient_in_the_case(run: Any, pattern: str) -> None:
    text = (
        RUN.replace("\na,", "\na_ct,")
        .replace("\nb,", "\nb_ct,")
        .replace("\nc,", "\nc_ct,")
        .replace("\nx,", "\nx_ct,")
    )
    made = join_ai_ene(clinical("a", "b"), run(text), id_pattern=pattern)
    assert made.table["n_ai_ene"].tolist() == [2, 0]


def test_no_partner_at_all_shows_ids_of_both(run: Any) -> None:
    with pytest.raises(UsageError) as caught:
        join_ai_ene(clinical("P1", "P2"), run())
    assert "the table has P1, P2" in str(caught.value)
    assert "the run a, b, c and 1 more" in str(caught.value)
    assert "--id-pattern" in str(caught.value)


def test_ids_that_differ_only_in_spelling_are_hinted_at(run: Any) -> None:
    with pytest.raises(UsageError, match="differ only in case, zeros or punctuation"):
        join_ai_ene(clinical("P-001"), run(RUN.replace("\na,", "\np_1,")))


def test_two_cases_of_one_patient_are_refused_by_name(run: Any) -> None:
    with pytest.raises(InputError, match=r"1 patient has more than one case \(a\)"):
        join_ai_ene(clinical("a"), run(RUN.replace("\nx,", "\na,")))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("case_id,n\na,1\n", "it has no case_id and n_ai_ene"),
        ("case_id,n_ai_ene\na,many\n", 'n_ai_ene holds "many"'),
        ("case_id,n_ai_ene\na,-1\n", 'n_ai_ene holds "-1"'),
        ("case_id,n_ai_ene\na,1.5\n", 'n_ai_ene holds "1.5"'),
        ("case_id,n_ai_ene\n,1\n", "case_id is missing"),
    ],
)
def test_a_file_that_is_no_run_is_one_sentence(run: Any, text: str, part: str) -> None:
    with pytest.raises(InputError) as caught:
        join_ai_ene(clinical("a"), run(text))
    assert part in str(caught.value)


@pytest.mark.parametrize(("pattern", "error"), [("(", UsageError), ("^zzz", InputError)])
def test_a_pattern_that_finds_nothing_is_one_sentence(run: Any, pattern: str, error: Any) -> None:
    with pytest.raises(error, match="--id-pattern"):
        join_ai_ene(clinical("a"), run(), id_pattern=pattern)


def test_an_own_count_gives_way_and_is_told(run: Any) -> None:
    table = clinical("a").assign(n_ai_ene=pd.array([9], dtype="Int64"))
    made = join_ai_ene(table, run())
    assert made.table["n_ai_ene"].tolist() == [2]
    assert any("is replaced by" in w for w in made.warnings)


def test_counts_of_two_models_are_told(run: Any) -> None:
    made = join_ai_ene(clinical("a", "b"), run(RUN.replace("0,0,default", "0,0,other")))
    assert any("more than one model" in w for w in made.warnings)


def test_a_simulated_run_stays_simulated(run: Any) -> None:
    text = "case_id,n_ai_ene,ai_ene_source\na,1,simulated\nb,0,simulated\n"
    assert join_ai_ene(clinical("a", "b"), run(text)).table["ai_ene_source"].tolist() == ["simulated"] * 2


def test_the_nodes_of_a_run_come_with_their_patient(run: Any) -> None:
    path = run()
    assert run_nodes(path) is None
    (path.parent / "nodes.csv").write_text("case_id,node,ene\na_1,1,0.7\na_1,2,0.1\nb_1,1,\n")
    nodes = run_nodes(path, id_pattern="^(.)_")
    assert nodes.to_dict("list") == {"patient_id": ["a", "a"], "ene": [0.7, 0.1]}  # type: ignore[union-attr]


def test_results_that_are_not_there_are_told(tmp_path: Path) -> None:
    for place in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="no such file; name the results folder of aiene run"):
            join_ai_ene(clinical("a"), place)


def test_nodes_that_do_not_count_are_known_as_such(run: Any) -> None:
    path = run()
    (path.parent / "nodes.csv").write_text("case_id,node,ene,counts\na,1,0.7,1\na,2,0.9,0\n")
    assert run_nodes(path).to_dict("list") == {"patient_id": ["a", "a"], "ene": [0.7, 0.9], "counts": [1, 0]}  # type: ignore[union-attr]


@pytest.mark.parametrize("where", [".", "ene-threshold-0.5"])
def test_the_nodes_of_a_run_have_every_digit_of_its_records(run: Any, where: str) -> None:
    path = run()
    folder = path.parent / where
    folder.mkdir(exist_ok=True)
    (folder / "nodes.csv").write_text("case_id,name,ene\na,GTVn_01,0.7123\na,GTVn_02,0.1\nb,GTVn_01,0.4\n")
    (path.parent / "cases" / "a").mkdir(parents=True)
    full = [{"name": "GTVn_01", "ene": 0.71234567}, {"name": "GTVn_02", "ene": 0.9}]
    (path.parent / "cases" / "a" / "case.json").write_text(json.dumps({"nodes": full}))
    nodes = run_nodes(folder)
    assert nodes is not None
    assert nodes["ene"].tolist() == [0.71234567, 0.1, 0.4]  # a record of other nodes is not this table's
