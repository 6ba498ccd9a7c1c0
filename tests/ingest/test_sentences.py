"""Names in what the reader of an input list says are arguments: a stand-in can be put for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiene.errors import InputError, Name, Said, TableError
from aiene.ingest.find import read_input_list


@pytest.mark.parametrize(
    "content",
    [
        "image,case_id\nct1.nii,Smith\nct2.nii,Smith\n",
        "image,date\nSmith.nii,born 1960\n",
        "image,mask\nSmith.nii,\nct2.nii,Smith2.nii\n",
        "image,case_id\nSmith.nii,a\nSmith.nii,b\n",
        "image,case_id\nSmith.nii\n",
        "case_id\nSmith\n",
    ],
)
def test_a_list_that_cannot_be_used_is_told_without_a_name_by_its_arguments_alone(
    tmp_path: Path, content: str
) -> None:
    listed = tmp_path / "Smith.csv"
    listed.write_text(content, encoding="utf-8")
    with pytest.raises((InputError, TableError)) as refused:
        read_input_list(listed)
    error = refused.value
    told = error.problems if isinstance(error, TableError) else [error.told]
    stood_in: list[Name] = []
    for sentence in told:
        assert isinstance(sentence, Said)
        shown = sentence.without_names(lambda name: stood_in.append(name) or "X")  # type: ignore[func-returns-value]
        assert "Smith" not in shown
        assert "1960" not in shown
    assert any("Smith" in name.text for name in stood_in)
