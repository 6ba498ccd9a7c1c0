"""The tables of a run, from records that are written here by hand."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from aiene.csv_tables import table_bytes
from aiene.nodes.node import CountingRule
from aiene.results import tables
from aiene.results.records import CaseResult, NodeResult


def node(value: int, number: int, ene: float | None, side: str = "left", volume: float = 300.0) -> NodeResult:
    return NodeResult(
        name=f"GTVn_{value:02d}",
        number=number,
        pos=0.75,
        ene=ene,
        ene_classification=None if ene is None else int(ene > 0.3),
        volume_before_mm3=volume,
        volume_after_mm3=2 * volume,
        axes=None,
        contour_mm3=volume / 2,
        centroid_lps_mm=(10.0, -20.0, 30.5),
        side=side,
        native_volume_mm3=volume + 1,
        native_long_axis_mm=12.5,
        native_short_axis_mm=7.25,
        touches_crop_border=False,
        touches_ct_border=False,
    )


RESULTS = [
    CaseResult("b", "ok", nodes=(node(1, 7, 0.9), node(2, 3, 0.1, "right", 90.0)), has_chosen=True),
    CaseResult("a", "no_nodes", has_primary=True),
    CaseResult("B", "no_nodes", has_primary=True, has_chosen=True),  # every node was dropped
    CaseResult("c", "no_nodes"),
    CaseResult("d", "failed", "d.nii.gz: not a CT; leave it out."),
    CaseResult("e", "skipped", "beyond --limit 5"),
]


def test_the_published_table_has_its_columns_order_and_placeholder() -> None:
    text = table_bytes(tables.published_table(RESULTS, axes=False)).decode()
    assert text.splitlines() == [
        "case_id,node,pos,ene,ene_classification,tumor_volume_after_dilation,tumor_volume_before_dilation",
        "a,-1,0.0,0.0,0,0.0,0.0",
        "b,3,0.75,0.1,0,180.0,90.0",
        "b,7,0.75,0.9,1,600.0,300.0",
    ]


def test_the_axes_follow_the_published_columns() -> None:
    table: Any = tables.published_table(RESULTS, axes=True)
    assert tuple(table.columns) == tables.PUBLISHED + tables.AXES
    assert table.loc[table.node == -1, list(tables.AXES)].to_numpy().tolist() == [[0.0] * 7]


def test_nodes_stand_by_falling_volume_with_their_place() -> None:
    table: Any = tables.nodes_table(RESULTS, axes=False, rule=CountingRule(0.3))
    assert list(table.name) == ["GTVn_01", "GTVn_02"]
    assert tuple(table.columns[:7]) == tables.PUBLISHED
    assert table.loc[0, ["centroid_x_mm", "centroid_y_mm", "centroid_z_mm"]].tolist() == [10.0, -20.0, 30.5]


def test_tables_for_people_are_rounded_and_say_what_the_full_numbers_say() -> None:
    near = replace(node(1, 7, 0.50004, volume=300.4), centroid_lps_mm=(10.04, -20.06, 30.5), pos=0.123456)
    case = CaseResult("x", "ok", nodes=(near,))
    shown = table_bytes(tables.nodes_table([case], axes=False, rule=CountingRule(0.3))).decode().splitlines()
    row = dict(zip(shown[0].split(","), shown[1].split(","), strict=True))
    assert (row["pos"], row["ene"], row["ene_entropy_bits"]) == ("0.1235", "0.50004", "1.0")
    assert (row["centroid_x_mm"], row["centroid_y_mm"], row["native_short_axis_mm"]) == (
        "10.0",
        "-20.1",
        "7.2",
    )
    assert (row["native_volume_mm3"], row["tumor_volume_after_dilation"]) == ("301", "601")
    published = tables.published_table([case], axes=False)
    assert published[["pos", "ene", "tumor_volume_after_dilation"]].to_numpy().tolist() == [
        [0.123456, 0.50004, 600.8]
    ]
    patient = tables.patients_table([case], model="m", rule=CountingRule(0.3)).iloc[0]
    assert patient[["max_ene", "largest_node_mm3", "total_node_mm3"]].tolist() == [0.50004, 301, 301]


def test_a_failed_case_has_no_count_and_one_without_nodes_has_zero() -> None:
    table: Any = tables.patients_table(RESULTS, model="m", rule=CountingRule(0.3)).set_index("case_id")
    assert table.loc["b", ["n_ai_ene", "n_ai_nodes", "n_left", "n_right"]].tolist() == [1, 2, 1, 1]
    assert table.loc["a", "n_ai_ene"] == 0
    assert pd.isna(table.loc["d", "n_ai_ene"])
    assert "e" not in table.index


def test_every_case_has_a_row_with_its_reason() -> None:
    text = table_bytes(tables.cases_table(RESULTS)).decode()
    table = pd.read_csv(io.StringIO(text), keep_default_na=False)
    assert list(table.case_id) == ["B", "a", "b", "c", "d", "e"]
    assert table.set_index("case_id").loc["d", ["status", "reason", "n_ai_nodes"]].tolist() == [  # type: ignore[operator]
        "failed",
        "d.nii.gz: not a CT; leave it out.",
        "",
    ]


@pytest.mark.parametrize(("p", "bits"), [(0.0, 0.0), (1.0, 0.0), (0.5, 1.0), (0.25, 2 - 0.75 * math.log2(3))])
def test_entropy_in_bits_has_its_closed_form(p: float, bits: float) -> None:
    assert tables.entropy_bits(p) == pytest.approx(bits, abs=1e-12)


def test_a_node_that_could_not_be_judged_has_empty_scores() -> None:
    table: Any = tables.nodes_table(
        [CaseResult("x", "ok", nodes=(node(1, 1, None),))], axes=False, rule=CountingRule(0.3)
    )
    assert pd.isna(table.loc[0, "ene"])
    assert pd.isna(table.loc[0, "ene_classification"])


def test_a_node_that_does_not_count_is_shown_and_left_out_of_number_and_highest_probability() -> None:
    doubtful = replace(node(2, 3, 0.95), pos=0.2, counts=False, ene_classification=0)
    assert [n.verdict for n in (node(1, 7, 0.8), node(1, 7, 0.1))] == ["ENE", "no ENE"]
    assert doubtful.verdict == "not counted, `pos` too low"
    result = CaseResult("x", "ok", nodes=(node(1, 7, 0.8), doubtful))
    nodes: Any = tables.nodes_table([result], axes=False, rule=CountingRule(0.3))
    assert nodes.counts.tolist() == [1, 0]
    assert nodes.ene.tolist() == [0.8, 0.95]
    row = tables.patients_table([result], model="m", rule=CountingRule(0.3, 0.45)).iloc[0]
    assert row[["n_ai_nodes", "n_ai_ene", "max_ene", "ai_threshold", "ai_pos_from"]].tolist() == [
        *(2, 1, 0.8),
        *(0.3, 0.45),
    ]


def test_empty_tables_keep_their_columns() -> None:
    assert len(tables.nodes_table([], axes=True, rule=CountingRule(0.3)).columns) == 7 + 7 + 12
    assert len(tables.published_table([], axes=False)) == 0


def test_a_record_comes_back_from_json_as_it_went() -> None:
    for result in RESULTS:
        assert CaseResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_without_an_orientation_no_side_is_told_in_any_table() -> None:
    lying = {"input": {"orientation_known": False}}
    found = CaseResult("u", "ok", nodes=(node(1, 1, 0.9, side=""),), facts=lying)
    assert not found.sides_known
    patients = table_bytes(tables.patients_table([found], model="m", rule=CountingRule(0.3))).decode()
    assert patients.splitlines()[1].startswith("u,u,ok,1,1,,,0.9,")
    nodes = table_bytes(tables.nodes_table([found], axes=False, rule=CountingRule(0.3))).decode().splitlines()
    row = dict(zip(nodes[0].split(","), nodes[1].split(","), strict=True))
    assert row["side"] == ""
    assert CaseResult.from_json(json.loads(json.dumps(found.to_json()))).sides_known is False
