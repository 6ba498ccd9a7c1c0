"""Names in what readers say are arguments: a pseudonymised run puts a stand-in for each, without a search."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from aiene.errors import InputError, Name, Said, TableError
from aiene.ingest.input_list import read_input_list

SOURCE = Path(__file__).resolve().parents[2] / "src" / "aiene"
READERS = [SOURCE / "csv_tables.py", *sorted((SOURCE / "ingest").rglob("*.py"))]
NAMES = {"case_id", "source", "stem", "file", "path", "folder", "patient", "series_uid"}


def _named(node: ast.JoinedStr) -> set[str]:
    """What an f-string of at least three words puts in that may be a name of the input."""
    words = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
    if words.count(" ") < 2:
        return set()
    return {
        ast.unparse(part.value)
        for part in node.values
        if isinstance(part, ast.FormattedValue)
        for inner in ast.walk(part.value)
        if (isinstance(inner, ast.Attribute) and inner.attr in {"name", *NAMES})
        or (isinstance(inner, ast.Name) and inner.id in NAMES)
    }


@pytest.mark.parametrize("file", READERS, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_sentence_of_a_reader_holds_a_name_as_plain_text(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    plain = [
        f"line {n.lineno}: {_named(n)}" for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) and _named(n)
    ]
    assert not plain, "make it said(template, file_name(...)): " + "; ".join(plain)


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
