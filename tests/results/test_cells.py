"""Cells of tables: what a spreadsheet would run stands there as text, and numbers stay numbers."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiene.cells import cell, rows_bytes, table_bytes


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
