"""The public collections: small tables with their headers and codes, read into the canonical one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aiene.errors import InputError, UsageError
from aiene.risk.importers.registry import SOURCES, import_table
from aiene.risk.importers.source import ImportOptions

DAY = 1 / 365.25


def written(tmp_path: Path, table: Any, name: str = "t.csv", **how: Any) -> Any:
    path = tmp_path / name
    if name.endswith(".xlsx"):
        table.to_excel(path, index=False, **how)
    else:
        table.to_csv(path, index=False, **how)
    return path


RADCURE = pd.DataFrame(
    {
        "patient_id": ["R-1", "R-2", "R-3", "R-4"],
        "Age": ["62.6", "55", "60", "71"],
        "Sex": ["Female", "Male", "Male", "Male"],
        "ECOG PS": ["ECOG 0", "ECOG-Pt 1", "ECOG 0-1", "Unknown"],
        "Smoking PY": ["50", "<10", "na", ">20"],
        "Smoking Status": ["Ex-smoker", "Current", "unknown", "Non-smoker"],
        "Ds Site": ["Oropharynx", "Larynx", "Unknown", "nasal cavity"],
        "T": ["T4b", "T1a", "rT0", "T2 (2)"],
        "N": ["N2c", "N0", "N2a", "N3b"],
        "M ": ["M0", "M0", "MX", ""],
        "HPV": ["Yes, positive", "Yes, Negative", "", ""],
        "Tx Modality": ["RT alone", "ChemoRT ", "RT + EGFRI", "Postop RT alone"],
        "RT Start": ["1/1/2010", "1/1/2010", "1/1/2010", "1/1/2010"],
        "Last FU": ["1/1/2011", "1/1/2012", "1/1/2013", "1/1/2014"],
        "Status": ["Dead", "Alive", "Alive", "Dead"],
        "Date of Death": ["1/1/2011", "", "", "1/1/2014"],
        "Local": ["", "Persistent", "Possible", ""],
        "Date Local": ["", "2/1/2010", "3/1/2010", ""],
        "Regional": ["", "Yes", "", ""],
        "Date Regional": ["", "1/15/2010", "", ""],
        "Distant": ["Yes", "", "", "Yes"],
        "Date Distant": ["7/1/2010", "", "", "12/1/2009"],
        "Length FU": ["1.1", "2.1", "3.1", "4.1"],
        "RADCURE-challenge": ["training", "test", "0", "0"],
    }
)


def test_radcure_is_understood_code_by_code(tmp_path: Path) -> None:
    made = import_table(written(tmp_path, RADCURE), "radcure")
    t = made.table
    assert t["site"].tolist() == ["oropharynx", "larynx", "unknown_primary", "other"]
    assert t["hpv"].tolist()[:2] == ["positive", "negative"]
    assert t["hpv"].isna().tolist() == [False, False, True, True]
    assert t["t7"].tolist() == ["T4b", "T1", "T0", "T2"]
    assert t["n7"].tolist() == ["N2c", "N0", "N2a", "N3"]
    assert t["ecog"].tolist()[:2] == [0, 1]
    assert t["ecog"].isna().tolist() == [False, False, True, True]
    assert t["pack_years_class"].tolist() == ["gt10", "le10", pd.NA, "gt10"]
    assert t["treatment"].tolist() == ["rt", "crt", "rt_egfr", "other"]
    assert t["surgery_first"].tolist() == [False, False, False, True]
    assert t["os_time"].to_numpy() == pytest.approx(np.array([365, 730, 1096, 1461]) * DAY)
    assert t["os_event"].tolist() == [1, 0, 0, 1]
    assert t["dm_time"].to_numpy() == pytest.approx(np.array([181, 730, 1096, 0]) * DAY)
    assert t["dm_event"].tolist() == [1, 0, 0, 1]
    assert t["lrf_time"].to_numpy() == pytest.approx(np.array([365, 14, 1096, 1461]) * DAY)
    assert t["lrf_event"].tolist() == [0, 1, 0, 0]
    assert made.provenance["time_origin"] == "rt_start"
    assert made.provenance["ignored_columns"] == ["Length FU"]
    assert any("before RT start in row 4" in w for w in made.warnings)


def test_radcures_possible_failures_count_by_the_users_word(tmp_path: Path) -> None:
    made = import_table(written(tmp_path, RADCURE), "radcure", options=ImportOptions(possible_is_event=True))
    assert made.table["lrf_event"].tolist() == [0, 1, 1, 0]


def test_the_preview_says_what_each_code_was_taken_for(tmp_path: Path) -> None:
    made = import_table(written(tmp_path, RADCURE), "radcure")
    line = next(line for line in made.preview if line.column == "hpv")
    assert line.source == "HPV"
    assert ("Yes, positive", "positive", 1) in line.codings
    assert (line.n_known, line.n_missing) == (2, 2)


def test_an_unknown_code_is_an_error_with_column_value_and_rows(tmp_path: Path) -> None:
    path = written(tmp_path, RADCURE.assign(HPV=["Yes, positive", "equivocal", "", "equivocal"]))
    with pytest.raises(InputError, match='HPV holds "equivocal" in rows 2, 4'):
        import_table(path, "radcure")
    made = import_table(path, "radcure", lenient=True)
    assert made.table["hpv"].isna().tolist() == [False, True, True, True]
    assert "counted as missing" in made.dropped[0]


def test_a_date_that_is_none_is_an_error_with_its_rows(tmp_path: Path) -> None:
    path = written(
        tmp_path, RADCURE.assign(**{"Last FU": ["31/12/2011", "1/1/2012", "1/1/2013", "1/1/2014"]})
    )
    with pytest.raises(InputError, match='Last FU holds "31/12/2011" in row 1, which is not a date'):
        import_table(path, "radcure")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it has no column HPV, RT Start"):
        import_table(written(tmp_path, RADCURE.drop(columns=["HPV", "RT Start"])), "radcure")


PET = pd.DataFrame(
    {
        "Patient #": ["HN-HGJ-001", "HN-HGJ-002", None],
        "Sex": ["M", "F", None],
        "Age": [60, 50, None],
        "Primary Site": ["Oropharynx", "Nasopharynx", None],
        "T-stage": ["T2", "T4a", None],
        "N-stage": ["N2b", "N2", None],
        "M-stage": ["M0", "Mx", None],
        "HPV status": ["+", "N/A", None],
        "Time – diagnosis to start treatment (days)": [30, 40, None],
        "Time – diagnosis to last follow-up(days)": [479, 1000, None],
        "Locoregional": [0, 1, None],
        "Distant": [1, 0, None],
        "Death": [1, 0, None],
        "Time – diagnosis to LR (days)": [None, 400, None],
        "Time – diagnosis to DM (days)": [300, None, None],
        "Time – diagnosis to Death (days)": [551, None, None],
        "Therapy": ["chemo radiation", "radiation", "a remark below the table"],
    }
)


def pet_book(tmp_path: Path, table: Any = PET) -> Any:
    path = tmp_path / "hn.xlsx"
    with pd.ExcelWriter(path) as book:
        table.to_excel(book, sheet_name="HGJ", index=False)
        other = table.iloc[:2].assign(**{"Patient #": ["HN-CHUM-001", "HN-CHUM-002"]})
        other.columns = [c.replace("–", "-") for c in other.columns]
        other = other.rename(columns={c: PET.columns[i] for i, c in enumerate(other.columns)})
        other.to_excel(book, sheet_name="CHUM", index=False)
    return path


def test_head_neck_pet_ct_reads_all_hospitals_and_leaves_the_footer(tmp_path: Path) -> None:
    made = import_table(pet_book(tmp_path), "head-neck-pet-ct")
    t = made.table
    assert t["patient_id"].tolist() == ["HN-HGJ-001", "HN-HGJ-002", "HN-CHUM-001", "HN-CHUM-002"]
    assert t["center"].tolist() == ["HGJ", "HGJ", "CHUM", "CHUM"]
    assert t["os_time"][0] == pytest.approx(551 * DAY)
    assert any("death is after the last follow-up" in w for w in made.warnings)
    assert t["dm_time"][:2].to_numpy() == pytest.approx(np.array([300, 1000]) * DAY)
    assert t["lrf_time"][:2].to_numpy() == pytest.approx(np.array([551, 400]) * DAY)
    assert t["hpv"].isna().tolist() == [False, True, False, True]
    assert t["m"].tolist()[:2] == ["M0", "MX"]
    assert any("remarks below the table" in n for n in made.notes)
    assert made.provenance["time_origin"] == "diagnosis"


def test_head_neck_pet_ct_can_count_from_the_start_of_treatment(tmp_path: Path) -> None:
    made = import_table(pet_book(tmp_path), "head-neck-pet-ct", options=ImportOptions(origin="rt_start"))
    assert made.table["os_time"][:2].to_numpy() == pytest.approx(np.array([521, 960]) * DAY)
    assert made.table["dm_time"][0] == pytest.approx(270 * DAY)


def test_head_neck_pet_ct_lists_an_event_without_time(tmp_path: Path) -> None:
    table = PET.assign(**{"Time – diagnosis to DM (days)": [None, None, None]})  # type: ignore[arg-type]
    made = import_table(pet_book(tmp_path, table), "head-neck-pet-ct")
    assert any(w.startswith("dm: time or event is missing in rows 1, 3") for w in made.warnings)
    assert pd.isna(made.table["dm_event"][0])
    assert made.table["os_event"][0] == 1


OPC = pd.DataFrame(
    {
        "Trial PatientID": ["OPC-00001", "OPC-00002"],
        "Sex": ["Male", "Female"],
        "Smoking PY": ["20", "0"],
        "HPV": ["Positive", ""],
        "T": ["T2", "T3"],
        "N": ["N2b", "N0"],
        "M": ["M0", "M0"],
        "Status(OS)": ["dead", "alive"],
        "Local Failure": ["", "Yes"],
        "Regional Failure": ["", ""],
        "Distant Failure": ["Yes", ""],
        "Time interval from the date of diagnosis to the date of last FU  (days)": [700, 1500],
        "Time interval from the date of diagnosis to the RT start date (days)": [30, 50],
        "TIME_diagnosis2LF (days)": ["", 400],
        "TIME_diagnosis2RF (days)": ["", ""],
        "TIME_diagnosis2DF (days)": [365, ""],
    }
)


def test_opc_radiomics_is_experimental_and_warns_of_the_same_hospital(tmp_path: Path) -> None:
    made = import_table(written(tmp_path, OPC), "opc-radiomics", options=ImportOptions(origin="rt_start"))
    assert made.table["os_time"].to_numpy() == pytest.approx(np.array([670, 1450]) * DAY)
    assert made.table["dm_event"].tolist() == [1, 0]
    assert made.table["dm_time"].to_numpy() == pytest.approx(np.array([335, 1450]) * DAY)
    assert made.table["lrf_time"].to_numpy() == pytest.approx(np.array([670, 350]) * DAY)
    assert any("experimental" in w for w in made.warnings)
    assert any("RADCURE" in w for w in made.warnings)


def test_a_copy_with_other_headers_is_read_by_a_mapping_of_headers(tmp_path: Path) -> None:
    mapping = tmp_path / "m.toml"
    mapping.write_text('[headers]\n"Trial PatientID" = "Pat"\n"Status(OS)" = "Vital"\n')
    table = OPC.rename(columns={"Trial PatientID": "Pat", "Status(OS)": "Vital"})
    made = import_table(written(tmp_path, table), "opc-radiomics", mapping)
    assert made.table["patient_id"].tolist() == ["OPC-00001", "OPC-00002"]


LONG = "_duration of Merged updated ASRM V2"
HNSCC = pd.DataFrame(
    {
        "TCIA Radiomics dummy ID of To_Submit_Final": ["1", "2", "3"],
        "Gender": ["Male", "Female", "Male"],
        "Age at Diag": ["55", "60", "65"],
        "Smoking status": ["Current", "Never", "Former"],
        "Smoking status (Packs-Years)": ["20", "", "5"],
        "HPV Status": ["P", "N", "Unknown"],
        "T-category": ["2", "4", "1"],
        "N-category": ["2b", "2", "0"],
        "Vital status": ["Alive", "Dead", "Alive"],
        "Overall survival" + LONG: ["1000", "500", "800"],
        "Locoregional control": ["Yes", "No", "Yes"],
        "Locoregional control" + LONG: ["1000", "300", "800"],
        "Freedom from distant metastasis": ["No", "Yes", "Yes"],
        "Freedom from distant metastasis" + LONG: ["200", "500", "800"],
        "Therapeutic Combination": ["Radiation Alone", "CC", "IC+CC"],
    }
)


def test_hnscc_controls_are_inverted(tmp_path: Path) -> None:
    made = import_table(written(tmp_path, HNSCC), "hnscc")
    t = made.table
    assert t["dm_event"].tolist() == [1, 0, 0]
    assert t["dm_time"].to_numpy() == pytest.approx(np.array([200, 500, 800]) * DAY)
    assert t["lrf_event"].tolist() == [0, 1, 0]
    assert t["n7"].tolist() == ["N2b", "N2", "N0"]
    assert t["t7"].tolist() == ["T2", "T4", "T1"]
    assert t["treatment"].tolist() == ["rt", "crt", "crt"]
    assert any("does not state when follow-up starts" in w for w in made.warnings)


MDA = pd.DataFrame(
    {
        "TCIA PatientID": ["H1", "H2", "H3"],
        "Sex": ["Male", "Female", "Male"],
        "Age": ["55", "60", "65"],
        "Site": ["Base of tongue", "Larynx", "Tonsil"],
        "T": ["2", "4a", "1"],
        "N": ["2b", "2c", "0"],
        "Smoking History": ["2", "0", "1"],
        "Current Smoker": ["1", "0", "0"],
        "Surgery Summary": ["", "laryngectomy", ""],
        "Alive or Dead": ["Alive", "Dead", "Alive"],
        "Follow up duration (day)": ["1000", "500", "800"],
        "Disease-free interval (months)": ["12", "6", ""],
        "Site of recurrence (Distal/Local/ Locoregional)": ["Distal", "Locoregional", ""],
    }
)


def test_hnscc_mda_is_told_apart_by_its_headers(tmp_path: Path) -> None:
    made = import_table(written(tmp_path, MDA, "m.xlsx"), "hnscc")
    t = made.table
    assert t["site"].tolist() == ["oropharynx", "larynx", "oropharynx"]
    assert t["pack_years_class"].tolist() == ["gt10", "le10", "le10"]
    assert t["boundary10"].tolist() == [True, False, False]
    assert t["smoking_status"].tolist() == ["current", "never", "former"]
    assert t["dm_time"].to_numpy() == pytest.approx([1.0, 500 * DAY, 800 * DAY])
    assert t["lrf_event"].tolist() == [0, 1, 0]
    assert t["t7"].isna().all()
    assert any("--edition" in w for w in made.warnings)
    said = import_table(written(tmp_path, MDA, "m.xlsx"), "hnscc", options=ImportOptions(edition="7")).table
    assert said["n7"].tolist() == ["N2b", "N2c", "N0"]
    assert said["edition_n"].tolist() == ["7", "7", "7"]


def test_a_table_that_is_neither_of_hnscc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it has neither the column"):
        import_table(written(tmp_path, OPC), "hnscc")


HN1 = pd.DataFrame(
    {
        "id": ["HN1004", "HN1006"],
        "index_tumour_location": ["oropharynx", "larynx"],
        "age_at_diagnosis": [56, 62],
        "biological_sex": ["male", "female"],
        "performance_status_ecog": [1, 0],
        "overall_hpv_p16_status": ["positive", ""],
        "clin_t": [4, 2],
        "clin_n": [2, 0],
        "clin_m": [0, 0],
        "chemotherapy_given": ["concomitant", "none"],
        "event_overall_survival": [1, 0],
        "overall_survival_in_days": [500, 2000],
        "event_distant_metastases": [0, 0],
        "distant_metastases_in_days": [500, 2000],
        "event_locoregional_recurrence": [1, 0],
        "locoregional_recurrence_in_days": [200, 2000],
    }
)


@pytest.mark.parametrize("dutch", [False, True])
def test_hn1_is_read_in_both_releases(tmp_path: Path, dutch: bool) -> None:
    names = {
        "index_tumour_location": "tumor_locatie",
        "age_at_diagnosis": "leeftijd_diagnose",
        "biological_sex": "geslacht",
        "performance_status_ecog": "ecog_status",
    }
    made = import_table(written(tmp_path, HN1.rename(columns=names if dutch else {})), "hn1")
    t = made.table
    assert t["n7"].tolist() == ["N2", "N0"]
    assert t["t7"].tolist() == ["T4", "T2"]
    assert t["site"].tolist() == ["oropharynx", "larynx"]
    assert t["ecog"].tolist() == [1, 0]
    assert t["lrf_time"].to_numpy() == pytest.approx(np.array([200, 2000]) * DAY)
    assert t["time_origin"].tolist() == ["rt_start", "rt_start"]
    assert t["treatment"].tolist() == ["crt", "rt"]


def test_hn1_cannot_count_from_diagnosis(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its times start at rt_start"):
        import_table(written(tmp_path, HN1), "hn1", options=ImportOptions(origin="diagnosis"))


CLINICAL = pd.DataFrame(
    {
        "PatientID": ["CHUM-001", "MDA-002", "CHUP-003"], "Task 1": [1, 1, 1], "CenterID": [2, 5, 3],
        "Gender": ["M", "F", "M"],
        "Age": [60, 55, 50], "Tobacco": [1, "", 0], "Alcohol": ["", "", 0], "Performance status": [0, 1, ""],
        "HPV status (0=-, 1=+)": [1, 0, ""], "Surgery": [0, 1, ""], "Chemotherapy": [1, 0, 1],
    }
)  # fmt: skip
ENDPOINT = pd.DataFrame({"PatientID": ["MDA-002", "CHUM-001"], "Relapse": [1, 0], "RFS": [400, 1461]})


def hecktor22(tmp_path: Path) -> Any:
    written(tmp_path, ENDPOINT, "hecktor2022_endpoint_training.csv")
    return written(tmp_path, CLINICAL, "hecktor2022_clinical_info_training.csv")


@pytest.mark.parametrize("give", ["clinical", "endpoint", "folder"])
def test_hecktor_2022_joins_its_two_tables(tmp_path: Path, give: str) -> None:
    path = hecktor22(tmp_path)
    given = {
        "clinical": path,
        "endpoint": tmp_path / "hecktor2022_endpoint_training.csv",
        "folder": tmp_path,
    }[give]
    made = import_table(given, "hecktor")
    t = made.table
    assert t["patient_id"].tolist() == ["CHUM-001", "MDA-002", "CHUP-003"]
    assert t["hpv"].tolist()[:2] == ["positive", "negative"]
    assert t["dfs_event"].tolist()[:2] == [0, 1]
    assert t["dfs_time"][:2].to_numpy() == pytest.approx([4.0, 400 * DAY])
    assert pd.isna(t["dfs_event"][2])
    assert t["os_event"].isna().all()
    assert made.provenance["endpoints"] == ["dfs"]
    assert any("no overall survival, no distant control" in w for w in made.warnings)
    assert t["surgery_first"].tolist()[:2] == [False, True]


def test_hecktor_2022_without_its_other_table_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table"):
        import_table(written(tmp_path, CLINICAL, "hecktor2022_clinical_info_training.csv"), "hecktor")


HECKTOR25 = pd.DataFrame(
    {
        "PatientID": ["CHUM-001", "MDA-002"], "CenterID": [2, 5], "Gender": [1, 0], "Age": [60, 55],
        "Tobacco Consumption": [1, ""],
        "Alcohol Consumption": ["", 0], "Performance Status\xa0": [0, 1], "Treatment": [1, 0],
        "T-stage": ["T2", "T4a"], "N-stage": ["N1", "N2"],
        "M-stage": ["M0", "Mx"], "HPV Status": [1, 0], "Relapse": [0, 1], "RFS": [1461, 400],
    }
)  # fmt: skip


def test_hecktor_2025_takes_no_polarity_and_no_edition_that_is_not_said(tmp_path: Path) -> None:
    path = tmp_path / "h.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"Column": ["x"]}).to_excel(book, sheet_name="Dictionary", index=False)
        HECKTOR25.to_excel(book, sheet_name="Data", index=False)
    made = import_table(path, "hecktor")
    assert made.table["hpv"].isna().all()
    assert made.table["t7"].isna().all()
    assert made.table["sex"].tolist() == ["male", "female"]
    assert made.table["ecog"].tolist() == [0, 1]
    assert any("--hpv-one-is" in w for w in made.warnings)
    said = import_table(path, "hecktor", options=ImportOptions(hpv_one_is="positive", edition="8")).table
    assert said["hpv"].tolist() == ["positive", "negative"]
    assert said["n8"].tolist() == ["N1", "N2"]


def test_every_importer_refuses_a_foreign_table_in_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, pd.DataFrame({"a": [1], "b": [2]}))
    for name in SOURCES:
        with pytest.raises(InputError) as caught:
            import_table(path, name)
        assert str(caught.value).endswith(".")


def test_an_unknown_source_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="known are radcure, opc-radiomics"):
        import_table(written(tmp_path, OPC), "seer")


@pytest.mark.slow
def test_every_imported_table_can_be_written_and_read_again(tmp_path: Path) -> None:
    from aiene.risk.table.files import write_table
    from aiene.risk.table.read import read_table

    for name, table in {"radcure": RADCURE, "opc-radiomics": OPC, "hnscc": HNSCC, "hn1": HN1}.items():
        made = import_table(written(tmp_path, table), name).table
        write_table(made, tmp_path / "again.csv")
        again = read_table(tmp_path / "again.csv")
        canonical = [c for c in made.columns if c in again.columns and made[c].dtype == again[c].dtype]
        pd.testing.assert_frame_equal(again[canonical], made[canonical])
        assert len(canonical) >= len(made.columns) - 2


def test_a_failure_before_the_chosen_origin_counts_at_time_0_and_is_told(tmp_path: Path) -> None:
    table = PET.assign(**{"Time – diagnosis to DM (days)": [10, None, None]})  # type: ignore[arg-type]
    made = import_table(
        pet_book(tmp_path, table), "head-neck-pet-ct", options=ImportOptions(origin="rt_start")
    )
    assert made.table["dm_time"][0] == 0.0
    assert made.table["dm_event"][0] == 1
    assert any("dm: the event is before the origin in rows 1, 3" in w for w in made.warnings)
