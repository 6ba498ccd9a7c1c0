"""Cells of tables: what a spreadsheet would run stands there as text, and numbers stay numbers."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiene.csv_tables import cell, probability, probability_text, rows_bytes, table_bytes


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "=cmd|' /C calc'!A0",
        "+A1",
        "-2+3+cmd|' /C calc'!A0",
        "@SUM(1)",
        " =1",
        "\uff1dHYPERLINK(1)",
        "-x",
    ],
)
def test_what_begins_a_formula_is_text(text: str) -> None:
    assert cell(text) == f"'{text}"


def test_tab_and_line_ends_at_the_beginning_are_shown_and_no_formula() -> None:
    assert [cell(c + "=1") for c in "\t\r\n"] == ["'\\t=1", "'\\r=1", "'\\n=1"]


@pytest.mark.parametrize(
    "text",
    [
        "-12.5",
        "+3",
        "-1e-05",
        "-0.12 (-0.30 to 0.10)",
        "-5%",
        "-",
        "+",
        "-inf",
        "12",
        "",
        "PT-1",
        "a=b",
        "-1,5",
    ],
)
def test_numbers_and_plain_words_stay(text: str) -> None:
    assert cell(text) == text


def test_what_is_no_text_stays() -> None:
    assert [cell(v) for v in (-12.5, -3, None, True)] == [-12.5, -3, None, True]


@given(st.text())
def test_no_cell_obeys_a_screen_and_every_table_is_utf_8(text: str) -> None:
    content = rows_bytes([[text]]).decode()
    assert not set(content) & set("\x1b\x07\x00\u202e\u2066")
    ((back,),) = csv.reader(io.StringIO(content)) if content.strip() else (("",),)
    assert not back.startswith(("=", "@", "\t", "\r"))


def test_bytes_that_are_no_utf_8_are_escaped() -> None:
    assert cell("caf\udce9") == "caf\\xe9"


def test_a_table_keeps_its_numbers_and_its_missing_cells() -> None:
    table = pd.DataFrame({"=n": ["=a", None], "x": [-12.5, np.nan], "k": pd.array([-1, None], "Int64")})
    assert table_bytes(table).decode().splitlines() == ["'=n,x,k", "'=a,-12.5,-1", ",,"]
    assert table["=n"][0] == "=a"


@given(
    st.floats(0, 1),
    st.one_of(st.integers(1, 99).map(lambda k: k / 100), st.floats(0, 1)),
)
@example(0.30004, 0.3)
@example(0.29996, 0.3)
@example(0.5, 0.5)
@example(0.50000001, 0.5)
@example(0.123449, 0.12345)
def test_a_probability_in_a_table_is_on_the_same_side_of_every_threshold(p: float, threshold: float) -> None:
    """Thresholds of two decimals always, any other where the table is told of it."""
    marks = () if threshold == round(threshold, 2) and 0 < threshold < 1 else (threshold,)
    short = probability(p, marks)
    text = probability_text(p, marks, missing="-")
    for shown in (short, float(text)):
        assert (shown > threshold, shown >= threshold) == (p > threshold, p >= threshold)  # type: ignore[operator]
        assert abs(shown - p) <= 0.5e-4  # type: ignore[operator]
    assert "e" not in text
    assert len(text.partition(".")[2]) >= 4


def test_most_probabilities_have_four_decimals_and_one_that_is_missing_none() -> None:
    assert [probability(p) for p in (0.959479808807373, 0.9995129108428955, 1.0, 0.25)] == [
        0.9595,
        0.9995,
        1.0,
        0.25,
    ]
    assert probability_text(0.25, missing="-") == "0.2500"
    assert probability_text(0.30004, missing="-") == "0.30004"
    assert (probability(None), probability_text(None, missing="-")) == (None, "-")
