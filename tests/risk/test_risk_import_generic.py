"""Own tables by a mapping file: not guessed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aiene.errors import InputError, TableError, UsageError
from aiene.risk.importers.generic import read_mapping, template
from aiene.risk.importers.registry import import_table
from aiene.risk.importers.source import ImportOptions
from aiene.risk.table.columns import BY_NAME

TABLE = "ID,Months,Vital,p16,Nodal,Size,Ward\n1,12,2,pos,2b,35,x\n2,24,1,neg,0,0,y\n3,36,1,equivocal,3,70,x\n"
MAPPING = """
unit = "months"
origin = "rt_start"
keep = ["Ward"]
[columns]
patient_id = "ID"
os_time = "Months"
os_event = "Vital"
hpv = "p16"
n7 = "Nodal"
largest_node_cm = "Size"
[values.os_event]
1 = 0
2 = 1
[values.hpv]
pos = "positive"
neg = "negative"
equivocal = ""
[constants]
site = "oropharynx"
edition_n = "7"
[units]
largest_node_cm = "mm"
"""


@pytest.fixture
def own(tmp_path: Path) -> Any:
    def make(mapping: Any = MAPPING, table: Any = TABLE) -> Any:
        (tmp_path / "own.csv").write_text(table)
        (tmp_path / "map.toml").write_text(mapping)
        return import_table(tmp_path / "own.csv", "generic", tmp_path / "map.toml")

    return make


def test_an_own_table_is_read_as_its_mapping_says(own: Any) -> None:
    made = own()
    t = made.table
    assert t["os_time"].tolist() == [1.0, 2.0, 3.0]
    assert t["os_event"].tolist() == [1, 0, 0]
    assert t["hpv"].tolist() == ["positive", "negative", pd.NA]
    assert t["n7"].tolist() == ["N2b", "N0", "N3"]
    assert t["largest_node_cm"].tolist() == [3.5, 0.0, 7.0]
    assert t["site"].tolist() == ["oropharynx"] * 3
    assert t["Ward"].tolist() == ["x", "y", "x"]
    line = next(line for line in made.preview if line.column == "os_time")
    assert line.understood == "months / 12 = years"
    assert made.provenance["mapping_sha256"]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (('unit = "months"\n', ""), "the unit of os_time is not stated"),
        (('origin = "rt_start"\n', ""), "does not state when follow-up starts"),
        (('unit = "months"', 'unit = "weeks"'), "unit: input should be 'days', 'months' or 'years'"),
        (('patient_id = "ID"\n', ""), "the mapping has no patient_id"),
        (('os_time = "Months"', 'os_time = "Weeks"'), "it has no column Weeks"),
        (('os_time = "Months"', 'os_tme = "Months"'), "there is no canonical column os_tme"),
        (("[columns]", "[colums]"), "colums"),
        (('equivocal = ""\n', ""), 'p16 holds "equivocal" in row 3'),
        (('unit = "months"', 'unit = "months'), "it is not TOML"),
        (('largest_node_cm = "mm"', 'largest_node_cm = "days"'), "cannot be days"),
        (("1 = 0\n2 = 1\n", "1 = 0\n"), 'Vital holds "2" in row 1'),
    ],
)
def test_a_mapping_that_leaves_something_open_is_refused_in_one_sentence(
    own: Any, change: tuple[str, str], part: str
) -> None:
    with pytest.raises(InputError) as caught:
        own(MAPPING.replace(*change))
    assert part in str(caught.value)


def test_times_in_days_taken_for_months_are_warned_of(own: Any) -> None:
    made = own(table=TABLE.replace("12,2", "900,2"))
    assert any("os_time reaches 75 years" in w for w in made.warnings)


def test_generic_without_a_mapping_says_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(TABLE)
    with pytest.raises(UsageError, match="--template"):
        import_table(tmp_path / "own.csv", "generic")


def test_the_users_origin_goes_before_the_mappings(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(TABLE)
    (tmp_path / "map.toml").write_text(MAPPING)
    options = ImportOptions(origin="diagnosis")
    made = import_table(tmp_path / "own.csv", "generic", tmp_path / "map.toml", options=options)
    assert made.provenance["time_origin"] == "diagnosis"


def test_the_template_is_toml_and_knows_every_column() -> None:
    text = template(["Patient ID", "HPV", "os_time", 'odd "header"'])
    content = tomllib.loads(text)
    assert content["columns"] == {"patient_id": "Patient ID", "hpv": "HPV", "os_time": "os_time"}
    for name in BY_NAME:
        if not name.startswith(("n_ai", "ai_", "time_origin")):
            assert f"{name} = " in text
    assert tomllib.loads(template()) == {"columns": {}, "constants": {}, "units": {}}


def test_the_template_uncommented_is_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(template(["patient_id"]))
    assert read_mapping(tmp_path / "m.toml").columns == {"patient_id": "patient_id"}


def test_no_mapping_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it cannot be read"):
        read_mapping(tmp_path / "none.toml")


DATED = """
origin = "rt_start"
origin_date = "RT"
date_format = "%d/%m/%Y"
[columns]
patient_id = "ID"
os_time = "Last"
os_event = "Dead"
dm_time = "Metastasis"
dm_event = "DM"
[constants]
site = "oropharynx"
"""
DAYS = (
    "ID,RT,Last,Dead,Metastasis,DM\n1,01/02/2020,01/02/2023,1,01/02/2021,1\n2,03/02/2020,03/02/2022,0,,0\n"
    "Total,,,1,,1\n"
)


def test_days_of_the_calendar_become_years_from_the_day_of_origin(own: Any) -> None:
    made = own(DATED, DAYS).table
    assert made["os_time"].tolist() == pytest.approx([1096 / 365.25, 731 / 365.25])
    assert made["dm_time"].tolist() == pytest.approx([366 / 365.25, 731 / 365.25])  # followed to the end
    assert made["patient_id"].tolist() == ["1", "2"]
    assert '"Total" in row 3 summarises the table and is not a patient; left out' in made.attrs["warnings"]


@pytest.mark.parametrize(
    ("mapping", "sentence"),
    [
        (DATED.replace('date_format = "%d/%m/%Y"', ""), "not a date like %Y-%m-%d"),
        (DATED.replace('origin_date = "RT"', 'unit = "years"'), 'holds the day "01/02/2023" in rows 1, 2'),
    ],
)
def test_days_that_are_not_explained_are_refused(own: Any, mapping: Any, sentence: str) -> None:
    with pytest.raises((InputError, TableError), match=sentence.replace("%", "[%]")) as caught:
        own(mapping, DAYS)
    assert str(caught.value).count("RT holds") < 2
    assert "os_time;" not in str(caught.value)
