"""Reading the canonical table: formats, types, and every way that a table can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiene.errors import InputError, OutputError, TableError, UsageError
from aiene.risk.table.columns import COLUMNS
from aiene.risk.table.endpoints import competing, endpoint
from aiene.risk.table.files import read_raw, write_table
from aiene.risk.table.read import complete, read_table
from aiene.stats.competing_risks import cumulative_incidence

GOOD = pd.DataFrame(
    {
        "patient_id": ["007", "b", "c", "d"],
        "site": "oropharynx",
        "hpv": ["positive", "negative", None, "positive"],
        "t7": ["T1", "T4a", "TX", "T2"],
        "n7": ["N0", "N2b", "N3", None],
        "edition_t": "7",
        "edition_n": "7",
        "m": "M0",
        "pack_years": [0.0, 10.0, 10.5, None],
        "os_time": [1.0, 2.5, 3.0, 0.0],
        "os_event": [1, 0, 1, 0],
        "dm_time": [0.5, 2.5, 3.0, 0.0],
        "dm_event": [1, 0, 0, 0],
        "n_ai_ene": [0, 1, None, 3],
    }
)


def bad(**columns: Any) -> Any:
    """The good table with some columns changed."""
    return GOOD.assign(**columns)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.xlsx", "t.parquet"])
def test_every_format_gives_the_same_table(tmp_path: Path, name: str) -> None:
    table = complete(GOOD)
    path = tmp_path / name
    write_table(table, path)
    again = read_table(path)
    pd.testing.assert_frame_equal(again, table, check_like=False)
    assert again["patient_id"].tolist()[0] == "007"


@pytest.mark.parametrize(
    ("encoding", "separator"),
    [("utf-8", ","), ("utf-8-sig", ";"), ("utf-16", "\t"), ("cp1252", ";"), ("utf-8", "\t")],
)
def test_text_tables_of_other_programs_are_read(tmp_path: Path, encoding: str, separator: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        separator.join(["patient_id", "site", "center"])
        + "\r\n"
        + separator.join(["1", "larynx", "Köln"])
        + "\r\n",
        encoding=encoding,
    )
    assert read_table(path)["center"].tolist() == ["Köln"]


def test_an_id_of_a_workbook_keeps_no_point_zero(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    pd.DataFrame({"patient_id": [7.0, 8.0], "site": "larynx"}).to_excel(path, index=False)
    assert read_table(path)["patient_id"].tolist() == ["7", "8"]


def test_decimal_commas_and_words_of_missing_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("patient_id;site;age;pack_years\na;oropharynx;61,5;NA\nb;oropharynx;n/a;12\n")
    table = read_table(path)
    assert table["age"].tolist()[0] == 61.5
    assert np.isnan(table["age"][1])
    assert np.isnan(table["pack_years"][0])


def test_every_canonical_column_is_there_with_its_type() -> None:
    table = complete(pd.DataFrame({"patient_id": ["a"], "site": ["larynx"]}))
    for column in COLUMNS:
        assert str(table[column.name].dtype) == column.dtype
    assert table.drop(columns=["patient_id", "site", "pack_years_derived"]).isna().all(axis=None)


def test_own_columns_are_carried_along() -> None:
    assert complete(bad(shoe_size=[41, 42, 43, 44]))["shoe_size"].tolist() == [41, 42, 43, 44]


def refused(table: Any, *parts: Any) -> Any:
    with pytest.raises(InputError) as caught:
        complete(table, name="cohort.csv")
    sentence = str(caught.value)
    assert sentence.startswith("cohort.csv: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    for part in parts:
        assert part in sentence
    return sentence


@pytest.mark.slow
def test_events_coded_1_and_2_are_refused_since_they_can_mean_either() -> None:
    refused(
        bad(os_event=[2, 1, 2, 1]), "os_event is coded 1 and 2", "which is ambiguous", "[values.os_event]"
    )


def test_other_events_are_refused_with_value_and_rows() -> None:
    refused(
        bad(os_event=[1, 0, 3, "perhaps"]), 'os_event holds "3", "perhaps" in rows 3, 4', "0 (censored) or 1"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("yes", "no"),
        ("Yes", "No"),
        ("TRUE", "FALSE"),
        ("dead", "alive"),
        ("Deceased", "Living"),
        ("1.0", "0.0"),
    ],
)
def test_words_that_mean_one_thing_only_are_understood_and_noted(words: tuple[str, str]) -> None:
    table = complete(bad(os_event=[words[0], words[1], words[0], words[1]]))
    assert table["os_event"].tolist() == [1, 0, 1, 0]


def test_alive_says_nothing_about_metastasis() -> None:
    refused(bad(dm_event=["dead", "alive", "alive", "alive"]), 'dm_event holds "dead", "alive"')


def test_negative_times_are_refused_with_their_rows() -> None:
    refused(bad(os_time=[1.0, -0.5, 2.0, -3.0]), "os_time is negative (-0.5, -3)", "rows 2, 4", "origin")


def test_lenient_counts_them_as_missing_and_says_so() -> None:
    table = complete(bad(os_time=[1.0, -0.5, 2.0, 3.0]), lenient=True)
    assert np.isnan(table["os_time"][1])
    assert pd.isna(table["os_event"][1])
    assert "counted as missing" in table.attrs["dropped"][0]


def test_infinite_times_are_refused() -> None:
    refused(bad(os_time=[1.0, np.inf, 2.0, 3.0]), "os_time is infinite in row 2")


def test_times_in_days_are_warned_of() -> None:
    table = complete(bad(os_time=[300.0, 900, 2000, 20]))
    assert any("os_time reaches 2000 years" in w and "days" in w for w in table.attrs["warnings"])


def test_times_in_months_are_warned_of() -> None:
    table = complete(bad(os_time=[12.0, 60, 90, 20]))
    assert any("os_time reaches 90 years" in w and "months" in w for w in table.attrs["warnings"])


def test_times_that_were_months_or_years_but_taken_for_days_are_warned_of() -> None:
    cohort = pd.DataFrame(
        {
            "patient_id": [str(i) for i in range(20)],
            "site": "oropharynx",
            "os_time": np.linspace(1, 90, 20) / 365.25,
            "os_event": [0, 1] * 10,
        }
    )
    assert any("taken for days" in w for w in complete(cohort).attrs["warnings"])


def test_plausible_times_are_not_warned_of() -> None:
    assert complete(GOOD).attrs["warnings"] == []


def test_one_code_only_is_warned_of() -> None:
    cohort = pd.DataFrame(
        {
            "patient_id": [str(i) for i in range(20)],
            "site": "oropharynx",
            "os_time": np.linspace(1, 9, 20),
            "os_event": 1,
        }
    )
    assert any("every patient is an event" in w for w in complete(cohort).attrs["warnings"])


def test_a_patient_twice_is_refused_by_name() -> None:
    refused(bad(patient_id=["a", "b", "a", "d"]), "1 patient appears more than once", "a (rows 1, 3)")


def test_a_patient_without_name_is_refused() -> None:
    refused(bad(patient_id=["a", None, " ", "d"]), "patient_id is missing in rows 2, 3")


def test_an_unknown_word_names_what_is_allowed() -> None:
    refused(
        bad(hpv=["positive", "maybe", None, "negative"]),
        'hpv holds "maybe" in row 2',
        "positive, negative",
        "[values.hpv]",
    )


@pytest.mark.parametrize(
    ("column", "written", "meant"),
    [
        ("hpv", "POS", "positive"),
        ("hpv", "p16-", "negative"),
        ("t7", "4A", "T4a"),
        ("t7", "cT2", "T2"),
        ("t7", "tis", "Tis"),
        ("n7", "2b", "N2b"),
        ("n7", "nx", "NX"),
        ("sex", "F", "female"),
        ("m", "0", "M0"),
    ],
)
def test_the_usual_spellings_are_understood(column: str, written: str, meant: str) -> None:
    table = complete(GOOD.assign(**{column: written}))
    assert table[column].tolist() == [meant] * 4


@pytest.mark.parametrize(("column", "edition"), [("n7", "7"), ("n8", "8")])
def test_the_column_says_the_edition_where_nothing_else_does(column: str, edition: str) -> None:
    table = complete(GOOD.drop(columns="edition_n").rename(columns={"n7": column}))
    assert table["edition_n"].tolist()[:3] == [edition] * 3
    assert pd.isna(table["edition_n"][3])
    assert "edition_n: by the column, n7 or n8, in rows 1, 2, 3" in table.attrs["notes"]


def test_an_edition_is_needed_where_two_columns_hold_n() -> None:
    refused(
        bad(n8="N1").drop(columns="edition_n"), "N is given in n7 and n8 without edition_n", "rows 1, 2, 3"
    )


BARE = {"patient_id": ["a", "b", "c"], "site": "oropharynx", "T": ["T1", "T4a", None],
        "N": ["N2b", "1", "NX"],
        "M": ["M0", "M1", "unknown"]}  # fmt: skip


@pytest.mark.parametrize("edition", ["7", "8"])
def test_t_n_and_m_without_an_edition_are_read_by_the_one_that_is_said(edition: str) -> None:
    table = complete(pd.DataFrame(BARE), edition=edition)
    assert table[f"t{edition}"].tolist()[:2] == ["T1", "T4a"]
    assert table[f"n{edition}"].tolist() == ["N2b", "N1", "NX"]
    assert table["m"].tolist()[:2] == ["M0", "M1"]
    assert table["edition_n"].tolist() == [edition] * 3
    assert not {"T", "N", "M"} & set(table)


def test_each_row_may_say_its_edition_in_one_column() -> None:
    table = complete(
        pd.DataFrame(BARE).rename(columns={"T": "T stage"}).assign(**{"TNM edition": ["AJCC 7", "8th", "9"]})
    )
    assert table["n7"].tolist()[:1] == ["N2b"]
    assert table["n8"].tolist()[1] == "N1"
    assert table["n9"].tolist()[2] == "NX"
    assert table["edition_n"].tolist() == ["7", "8", "9"]
    assert table["edition_t"].tolist()[:2] == ["7", "8"]
    assert not {"TNM edition", "T stage"} & set(table)


def test_t_and_n_without_any_edition_are_told_in_one_sentence() -> None:
    refused(
        pd.DataFrame(BARE), "the columns T and N do not state the TNM edition", "--edition 7 or --edition 8"
    )


def test_an_edition_that_is_asked_for_gives_way_to_the_tables_own() -> None:
    table = complete(GOOD, edition="8")
    assert table["edition_t"].tolist() == ["7"] * 4
    assert any("--edition 8 is ignored where edition_t states another" in w for w in table.attrs["warnings"])
    nameless = GOOD.drop(columns=["edition_t", "edition_n"])
    assert complete(nameless, edition="7")["edition_t"].tolist() == ["7"] * 4
    with pytest.raises(TableError, match="edition_t does not fit"):
        complete(nameless, edition="8")


@pytest.mark.parametrize(
    ("column", "word"), [("hpv", "unknown"), ("hpv", "Not tested"), ("pack_years", "unk"), ("t7", "?"),
                         ("smoking_status", "Unknown"), ("dm_event", "n/k"), ("clinical_ene", "not assessed")]
)  # fmt: skip
def test_what_nobody_knows_is_missing_and_told(column: str, word: str) -> None:
    table = complete(GOOD.astype(object).assign(**{column: word}))
    assert table[column].isna().all()
    assert any(f'{column}: "{word}" read as missing in rows 1, 2, 3, 4' in n for n in table.attrs["notes"])


def test_an_unknown_site_may_be_an_unknown_primary_and_is_refused() -> None:
    refused(bad(site="unknown"), 'site holds "unknown"', "unknown_primary", "an empty cell for a site")
    assert complete(bad(site="Oral cavity"))["site"].tolist() == ["oral_cavity"] * 4


def test_a_dash_is_hpv_negative_and_elsewhere_nothing() -> None:
    assert complete(bad(hpv="-"))["hpv"].tolist() == ["negative"] * 4
    assert complete(bad(sex="-"))["sex"].isna().all()


def test_everything_that_is_wrong_is_told_at_one_time() -> None:
    table = bad(hpv=["maybe", "negative", None, "positive"], os_event=[2, 1, 2, 1], age=[1, 2, 720, 4],
                patient_id=["a", "a", "c", None], edition_n="8")  # fmt: skip
    with pytest.raises(TableError) as caught:
        complete(table, name="cohort.csv")
    found = caught.value.problems
    assert all(problem.startswith("cohort.csv: ") and problem.endswith(".") for problem in found)
    for part in ('hpv holds "maybe"', "coded 1 and 2", "age is 720", "1 patient appears more than once",
                 "patient_id is missing in row 4", "edition_n does not fit"):  # fmt: skip
        assert sum(part in problem for problem in found) == 1, part
    assert len(found) == 6  # nothing that only follows, such as a time without an event


def test_headers_in_another_spelling_are_known_and_others_are_named() -> None:
    table = complete(
        GOOD.rename(columns={"patient_id": "Patient ID", "pack_years": "Pack-years"}).assign(Shoe=3)
    )
    assert table["patient_id"].tolist() == GOOD["patient_id"].tolist()
    assert table["pack_years"].tolist()[:3] == [0.0, 10.0, 10.5]
    assert "columns that are copied but not used: Shoe" in table.attrs["notes"]
    refused(GOOD.assign(HPV="positive"), "the columns hpv and HPV are both hpv")


def test_an_edition_must_fit_its_column() -> None:
    refused(bad(edition_t="8"), "edition_t does not fit")


def test_a_number_outside_its_range_is_refused() -> None:
    refused(bad(age=[61.0, 720, 55, 40]), "age is 720 in row 2", "unit")
    refused(bad(largest_node_cm=[61.0, 1, 1, 1]), "largest_node_cm is 61")
    refused(bad(n_ai_ene=[0, -1, 2, 3]), "n_ai_ene is -1 in row 2")
    refused(bad(n_ai_ene=[0, 1, 999, 3]), "n_ai_ene is 999 in row 3", "from 0 to 300")
    refused(bad(n_ai_ene=["0", "1.5", "2", "3"]), 'n_ai_ene holds "1.5"', "whole number")


def test_an_event_without_time_leaves_that_endpoint_only() -> None:
    table = complete(bad(dm_time=[None, 2.5, 3.0, 0.0]))
    found = endpoint(table, "dm")
    assert found.left_out == (("007", "no dm time or event"),)
    assert endpoint(table, "os").usable.all()
    assert any("dm: time or event is missing in row 1" in w for w in table.attrs["warnings"])


def test_times_without_events_are_refused() -> None:
    refused(GOOD.drop(columns="os_event"), "os_time has no os_event")
    refused(GOOD.drop(columns="os_time"), "os_event has no os_time")


def test_an_event_after_the_last_follow_up_is_kept_and_told() -> None:
    table = complete(bad(dm_time=[1.5, 2.5, 3.0, 0.0]))
    assert any(
        "dm: the event is after the last follow-up in row 1; kept" in w for w in table.attrs["warnings"]
    )
    assert endpoint(table, "dm").time[0] == 1.5


def test_no_site_is_warned_of_and_may_be_said() -> None:
    plain = complete(GOOD.drop(columns="site"))
    assert any("--default-site" in w for w in plain.attrs["warnings"])
    assert (
        complete(GOOD.drop(columns="site"), default_site="oropharynx")["site"].tolist() == ["oropharynx"] * 4
    )
    with pytest.raises(InputError, match="no site is called throat"):
        complete(GOOD.drop(columns="site"), default_site="throat")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<10", "le10"),
        ("<5", "le10"),
        ("<20", None),
        (">20", "gt10"),
        (">10", "gt10"),
        (">=10", None),
        ("≤10", "le10"),
        (">5", None),
    ],
)
def test_bounds_of_pack_years_give_a_class_only_where_they_decide_one(
    text: str, expected: str | None
) -> None:
    table = complete(GOOD.astype({"pack_years": object}).assign(pack_years=["0", text, "50", "10"]))
    assert table["pack_years_class"].tolist() == ["le10", expected if expected else pd.NA, "gt10", "le10"]
    assert np.isnan(table["pack_years"][1])


def test_a_never_smoker_without_number_counts_0_for_regressions_and_has_no_class(tmp_path: Path) -> None:
    table = complete(bad(smoking_status=["never", "former", "current", "never"]))
    assert table["pack_years"].tolist()[3] == 0.0
    assert pd.isna(table["pack_years_class"][3])
    assert table["pack_years_derived"].tolist() == [False, False, False, True]
    write_table(table, tmp_path / "t.csv")
    assert pd.isna(read_table(tmp_path / "t.csv")["pack_years_class"][3])


def test_disease_free_survival_is_the_first_of_failure_and_death() -> None:
    table = complete(bad(lrf_time=[1.0, 2.0, 3.0, 0.0], lrf_event=[0, 1, 0, 0]))
    assert table["dfs_time"].tolist() == [0.5, 2.0, 3.0, 0.0]
    assert table["dfs_event"].tolist() == [1, 1, 1, 0]


def test_competing_states_are_0_1_and_2() -> None:
    table = complete(GOOD)
    found = competing(table, "dc")
    assert found.event.tolist() == [1, 0, 2, 0]
    assert found.time.tolist() == [0.5, 2.5, 3.0, 0.0]
    with pytest.raises(UsageError, match="death competes only"):
        competing(table, "os")
    with pytest.raises(UsageError, match="no such endpoint"):
        endpoint(table, "pfs")


def test_a_failure_and_death_on_one_day_is_the_failure() -> None:
    assert competing(complete(bad(dm_time=[1.0, 2.5, 3.0, 0.0])), "dm").event[0] == 1


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"patient_id,site\n", "it has a header but no rows"),
        ("a.csv", b"x,y\n1,2\n", "it has no column patient_id"),
        ("a.csv", b"patient_id,site\n1,larynx\n2,larynx,3\n", "cannot be read as a table"),
        ("a.csv", b"patient_id,site,site\n1,larynx,larynx\n", "appears twice"),
        ("a.xlsx", b"not a workbook", "it is not an Excel workbook"),
        ("a.parquet", b"not parquet at all", "it is not a Parquet file"),
        ("a.sav", b"spss", ".sav is not a known kind of table"),
        ("a", b"x", "without an ending"),
    ],
)
def test_a_file_that_is_no_table_is_one_sentence(
    tmp_path: Path, name: str, content: bytes, part: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_table(path)
    assert part in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_no_file_and_a_folder_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a folder"):
        read_table(tmp_path)


def test_an_unknown_sheet_names_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    GOOD.to_excel(path, index=False, sheet_name="Cohort")
    assert len(read_raw(path, sheet="cohort ")) == 4
    with pytest.raises(InputError, match="no sheet Other; its sheets are Cohort"):
        read_raw(path, sheet="Other")


def test_writing_refuses_an_unknown_ending_and_a_place_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"written as \.csv"):
        write_table(GOOD, tmp_path / "a.sav")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_table(GOOD, tmp_path / "file" / "a.csv")


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.slow
def test_any_cell_is_a_sentence_or_a_value(data: Any) -> None:
    """No cell, whatever stands in it, ends in a traceback."""
    column = data.draw(
        st.sampled_from(
            [
                "os_event",
                "os_time",
                "hpv",
                "t7",
                "n7",
                "pack_years",
                "age",
                "n_ai_ene",
                "clinical_ene",
                "ecog",
            ]
        )
    )
    cells = data.draw(
        st.lists(
            st.one_of(st.none(), st.text(max_size=6), st.floats(), st.integers(-5, 500)),
            min_size=4,
            max_size=4,
        )
    )
    table = GOOD.astype(object).assign(**{column: cells})
    try:
        rows = len(complete(table))
    except InputError as error:
        rows = 4 * str(error).startswith("table: ")
    except TableError as error:
        rows = 4 * all(problem.startswith("table: ") for problem in error.problems)
    assert rows == 4


def test_the_path_of_a_table_is_never_told(tmp_path: Path) -> None:
    path = tmp_path / "Jane Doe" / "t.csv"
    path.parent.mkdir()
    path.write_text("patient_id\n1\n1\n")
    with pytest.raises(InputError) as caught:
        read_table(Path(path))
    assert "Jane" not in str(caught.value)


def test_a_row_that_sums_up_is_no_patient_and_whole_numbers_keep_their_point() -> None:
    rows = bad(patient_id=["1", "2", "3", "Total:"], edition_n=["7.0", "7", "7.0", None],
               n7=["2.0", "N1", "N0", "45"], os_event=["1.0", "0", "0", "12"])  # fmt: skip
    table = complete(rows)
    assert table["patient_id"].tolist() == ["1", "2", "3"]
    assert table["edition_n"].tolist() == ["7", "7", "7"]
    assert table["n7"].tolist() == ["N2", "N1", "N0"]
    assert any('"Total:" in row 4 summarises the table' in w for w in table.attrs["warnings"])


def test_follow_up_for_a_failure_ends_with_the_patients() -> None:
    table = complete(bad(os_time=[2.0, 2.5, 3.0, 1.0], os_event=[1, 0, 0, 0], dm_time=[5.0, 2.5, 3.0, 0.5],
                         dm_event=[0, 0, 0, 1]))  # fmt: skip
    assert table["dm_time"].tolist() == [2.0, 2.5, 3.0, 0.5]
    assert any("dm_time is beyond os_time" in w and "row 1" in w for w in table.attrs["warnings"])
    assert (competing(table, "dm").time[0], competing(table, "dm").event[0]) == (2.0, 2)


FOUR = {"dm_time": [2.0, 1.0, 1.5, 4.0], "dm_event": [1, 0, 0, 0], "os_time": [3.5, 2.5, 1.5, 4.0],
        "os_event": [1, 1, 0, 0]}  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "incidence"), [(None, 1 / 3), ("last_followup", 1 / 3), ("last_imaging", 0.5)]
)
def test_death_after_the_imaging_ended_competes_when_it_happens_unless_said_otherwise(
    choice: str | None, incidence: Any
) -> None:
    """R's cuminc of four patients, see tests/stats/reference: 0.333 and 0.5 at 3 years."""
    own = dict(FOUR) if choice is None else FOUR | {"dm_censor_at": [choice] * 4}
    table = complete(bad(**own))
    state = competing(table, "dm")
    assert cumulative_incidence(state.time, state.event).at([3])[0].value == pytest.approx(incidence)
    specific = endpoint(table, "dm")
    assert (specific.time.tolist(), specific.event.tolist()) == (state.time.tolist(), [1, 0, 0, 0])
    assert any("dm: death after the end of its own follow-up in row 2" in n for n in table.attrs["notes"])


def test_disease_free_survival_needs_both_failures_and_the_other_has_its_own_name() -> None:
    rows = bad(**FOUR).drop(columns=[c for c in bad() if c.startswith(("lrf", "dfs"))])
    table = complete(rows)
    assert table["dfs_time"].isna().all()
    found = endpoint(table, "dmfs")
    assert (found.time.tolist(), found.event.tolist()) == ([2.0, 2.5, 1.5, 4.0], [1, 1, 0, 0])
    both = complete(rows.assign(lrf_time=[1.0, 2.5, 1.5, 4.0], lrf_event=[1, 0, 0, 0]))
    assert both["dfs_time"].tolist() == [1.0, 2.5, 1.5, 4.0]


def test_n_of_version_9_does_not_stand_among_those_of_edition_8() -> None:
    with pytest.raises(InputError, match="N of version 9 into n9"):
        complete(bad(n7=[None] * 4, n8=["N1"] * 4, edition_n=["9"] * 4))


def test_an_edition_that_is_none_leaves_the_category_out_where_lenient() -> None:
    table = pd.DataFrame(BARE).assign(Edition=["2018", "8", "8"])
    with pytest.raises(TableError, match='the edition of T is "2018" in row 1; allowed are 7, 8 and 9'):
        complete(table)
    read = complete(table, lenient=True)
    assert read["n8"].tolist()[1:] == ["N1", "NX"]
    assert read[["t7", "t8", "n7", "n8", "edition_t", "edition_n"]].iloc[0].isna().all()


def test_events_coded_1_and_2_are_refused_also_where_lenient() -> None:
    """Counting 2 as missing would leave 1, which may as well be censored, as an event."""
    with pytest.raises(InputError, match="os_event is coded 1 and 2"):
        complete(bad(os_event=[2, 1, 2, 1]), lenient=True)
