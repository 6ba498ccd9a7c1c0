"""An edition of staging from a data file: written down again, edition 7 decides as the package's does."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aiene.errors import InputError
from aiene.risk.staging.own_edition import read_edition
from aiene.risk.staging.stage import Inputs, StagingOptions, stage_patient, stage_table, staging_columns

HEAD = 'name = "mine"\nsource = "as edition 7"\nhpv = "{hpv}"\nextension = "{extension}"\n'
PLAIN = HEAD.format(hpv="any", extension="none")
SEVEN = """
[[n]]
gives = "NX"
assessable = false
[[n]]
gives = "N0"
present = false
[[n]]
gives = "N3"
present = true
over_6_cm = true
[[n]]
gives = "N2c"
present = true
side = ["contralateral", "bilateral"]
over_6_cm = false
[[n]]
gives = "N2b"
present = true
several = true
side = ["ipsilateral"]
over_6_cm = false
[[n]]
gives = "N2a"
present = true
several = false
side = ["ipsilateral"]
over_3_cm = true
over_6_cm = false
[[n]]
gives = "N1"
present = true
several = false
side = ["ipsilateral"]
over_3_cm = false
[[stage]]
gives = "IVC"
m = ["M1"]
[[stage]]
gives = "IVB"
t = ["T4b"]
m = ["M0"]
[[stage]]
gives = "IVB"
n = ["N3"]
m = ["M0"]
[[stage]]
gives = "IVA"
t = ["T1", "T2", "T3", "T4a"]
n = ["N2a", "N2b", "N2c"]
m = ["M0"]
[[stage]]
gives = "IVA"
t = ["T4a"]
n = ["N0", "N1"]
m = ["M0"]
[[stage]]
gives = "III"
t = ["T1", "T2", "T3"]
n = ["N1"]
m = ["M0"]
[[stage]]
gives = "III"
t = ["T3"]
n = ["N0"]
m = ["M0"]
[[stage]]
gives = "II"
t = ["T2"]
n = ["N0"]
m = ["M0"]
[[stage]]
gives = "I"
t = ["T1"]
n = ["N0"]
m = ["M0"]
[[stage]]
gives = "0"
t = ["Tis"]
n = ["N0"]
m = ["M0"]
"""


def file_of(folder: Path, *, hpv: str = "any", extension: str = "none", tables: str = SEVEN) -> Path:
    path = folder / "mine.toml"
    path.write_text(HEAD.format(hpv=hpv, extension=extension) + tables, encoding="utf-8")
    return path


def patient(**known: Any) -> Inputs:
    return Inputs._make([None] * len(Inputs._fields))._replace(site="oropharynx", hpv="positive", **known)


@pytest.mark.slow
def test_edition_7_as_a_file_decides_every_patient_as_the_package_does(tmp_path: Path) -> None:
    edition = read_edition(file_of(tmp_path))
    measured = product(
        (None, 0, 1, 3), (None, "ipsilateral", "contralateral", "bilateral"), (None, 2.0, 4.0, 7.0)
    )
    nodes = [
        dict(zip(("n_nodes", "node_laterality", "largest_node_cm"), one, strict=True)) for one in measured
    ]
    nodes += [{"n7": word} for word in ("NX", "N0", "N1", "N2", "N2a", "N2b", "N2c", "N3")]
    for known, t, m in product(nodes, (None, "T1", "T2", "T3", "T4a", "T4b"), (None, "M0", "M1")):
        one = patient(t7=t, m=m, **known)
        made = stage_patient(one, StagingOptions(), [edition])
        if "n7" not in known:  # a category that was given stands as it is in its own edition
            assert made["mine_n"].value == made["ajcc7_n"].value, one
            assert made["mine_n"].row.removeprefix("mine") == made["ajcc7_n"].row.removeprefix("ajcc7")
        assert made["mine_stage"].value == made["ajcc7_stage"].value, one
        assert made["mine_stage"].possible == made["ajcc7_stage"].possible


def test_the_columns_stand_behind_those_of_the_package(tmp_path: Path) -> None:
    edition = read_edition(file_of(tmp_path, hpv="positive"))
    table = pd.DataFrame({"patient_id": ["a", "b", "c"], "site": "oropharynx", "t7": "T1", "n7": "N0",
                          "m": "M0", "hpv": ["positive", "negative", None]})  # fmt: skip
    staged = stage_table(table, own=[edition])
    assert tuple(staged.columns[2:]) == staging_columns([edition])
    assert staged["mine_stage"].tolist() == ["I", "not_applicable", "unknown"]
    assert staged["mine_stage_reason"].tolist() == ["", "mine is for HPV-positive disease", "missing: hpv"]
    plain = stage_table(table)
    pd.testing.assert_frame_equal(staged[list(plain.columns)], plain)


EXTENSION = """
[[n]]
gives = "N3"
present = true
extension = true
[[n]]
gives = "N1"
present = true
extension = false
[[n]]
gives = "N0"
present = false
[[stage]]
gives = "high"
n = ["N3"]
[[stage]]
gives = "low"
n = ["N0", "N1"]
"""


@pytest.mark.parametrize(
    ("whose", "column", "yes"), [("clinical", "clinical_ene", True), ("imaging", "iene_grade", 2)]
)
def test_the_extension_is_that_of_the_named_source(tmp_path: Path, whose: str, column: str, yes: Any) -> None:
    edition = read_edition(file_of(tmp_path, extension=whose, tables=EXTENSION))
    one = patient(n7="N2b", t7="T2", m="M0")
    made = [
        stage_patient(one._replace(**{column: value}), StagingOptions(), [edition])
        for value in (yes, type(yes)(0), None)
    ]
    assert [each["mine_n"].value for each in made] == ["N3", "N1", None]
    assert made[2]["mine_n"].reason == f"missing: {column} (could be N3 or N1)"
    assert made[2]["mine_stage"].possible == ("high", "low")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "it is not TOML"),
        (PLAIN.replace("mine", "Mine!") + SEVEN, "name: string should match"),
        (PLAIN + SEVEN + "color = 1\n", "stage.10.color: extra inputs"),
        (PLAIN + SEVEN.replace('["N3"]', '["N4"]'), "names the N N4"),
        (PLAIN + EXTENSION, "uses extension"),
        (PLAIN.replace("mine", "ajcc7") + SEVEN, "exist already"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said) as refused:
        read_edition(path)
    assert str(refused.value).startswith("mine.toml: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_edition(tmp_path / "none.toml")


def test_the_example_of_the_docs_gives_the_stages_of_edition_8(tmp_path: Path) -> None:
    """ICON-S became the p16-positive chapter of edition 8."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "risk.md").read_text(encoding="utf-8")
    path = tmp_path / "icon_s.toml"
    path.write_text(
        page.partition("```toml\nname = ")[2].partition("```")[0].join(("name = ", "")), encoding="utf-8"
    )
    edition = read_edition(path)
    for t, n, m in product(
        (None, "T1", "T2", "T3", "T4a"), ("N0", "N1", "N2b", "N2c", "N3"), (None, "M0", "M1")
    ):
        made = stage_patient(patient(t7=t, n7=n, m=m), StagingOptions(), [edition])
        assert made["icon_s_n"].value == made["ajcc8_n"].value
        assert made["icon_s_stage"].value == made["ajcc8_stage"].value
