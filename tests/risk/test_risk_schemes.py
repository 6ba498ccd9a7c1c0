"""Schemes: read, refused where they have a hole, hashed, shipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aiene.errors import InputError, UsageError
from aiene.risk.schemes.scheme import (
    BASE_GROUPS,
    Scheme,
    SchemeSource,
    list_schemes,
    read_scheme,
    scheme_bytes,
)

SOURCE = SchemeSource("prespecified", "the protocol", date="2026-01-01")


def scheme(**changes: Any) -> Any:
    base = {
        "name": "mine",
        "base": "rtog0129",
        "cutoffs": (1, 3),
        "mapping": {"low": ("a", "a", "b"), "intermediate": ("a", "b", "b"), "high": ("b", "b", "c")},
        "groups": ("a", "b", "c"),
        "source": SOURCE,
    }
    return Scheme(**{**base, **changes})


@pytest.mark.parametrize("name", list_schemes())
def test_every_shipped_scheme_reads_and_says_it_is_not_the_papers(name: Any) -> None:
    made = read_scheme(name)
    assert made.name == name
    assert made.source.kind == "prespecified"
    assert "this software" in made.source.by
    assert "not public" in made.source.note
    assert set(made.mapping) == set(BASE_GROUPS[made.base])


def test_the_count_alone_is_shipped() -> None:
    made = read_scheme("count-0-1-2plus")
    assert (made.base, made.cutoffs, made.classes) == ("none", (1, 2), ("0", "1", ">=2"))
    assert [made.combined("all", n) for n in (0, 1, 2, 9)] == [
        "no AI-ENE node",
        "one AI-ENE node",
        "two or more",
        "two or more",
    ]


def test_classes_are_named_by_their_cutoffs() -> None:
    assert scheme().classes == ("0", "1-2", ">=3")
    assert [scheme().combined("intermediate", n) for n in (0, 1, 2, 3)] == ["a", "b", "b", "b"]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"mapping": {"low": ("a", "a", "b"), "high": ("b", "b", "c")}}, "no row for intermediate"),
        ({"mapping": {**scheme().mapping, "odd": ("a", "a", "a")}}, "has no group odd"),
        ({"mapping": {**scheme().mapping, "low": ("a", "b")}}, "low maps 2 classes, and the cutoffs give 3"),
        ({"groups": ("a", "b")}, "do not use the same names (c)"),
        ({"groups": ("a", "b", "c", "d")}, "do not use the same names (d)"),
        ({"groups": ("a", "b", "c", "c")}, "listed twice"),
        ({"cutoffs": (3, 1)}, "cutoffs must rise"),
        ({"cutoffs": (1, 1)}, "cutoffs must rise"),
        ({"cutoffs": (0, 1)}, "from 1 on"),
        ({"cutoffs": ()}, "no cutoffs"),
        ({"base": "tnm"}, "base tnm is not one of"),
        ({"endpoint": "pfs"}, "endpoint pfs"),
        ({"name": " "}, "needs a name"),
        ({"base_definition": "ang"}, "base_definition ang"),
        ({"mapping": {**scheme().mapping, "low": ("b", "a", "b")}}, "low gets better with more n_ai_ene"),
        ({"mapping": {**scheme().mapping, "low": ("c", "c", "c")}}, "a worse base group gets a better group"),
        ({"source": SchemeSource("derived", "us")}, "must state source.cohort and source.method"),
        ({"source": SchemeSource("guessed", "us")}, "prespecified or derived"),  # type: ignore[arg-type]
        ({"source": SchemeSource("prespecified", "")}, "source.by"),
    ],
)
def test_a_scheme_with_a_hole_is_refused_in_one_sentence(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError) as caught:
        scheme(**changes)
    assert part in str(caught.value)


def test_a_scheme_that_is_not_monotone_must_say_so() -> None:
    made = scheme(mapping={**scheme().mapping, "low": ("c", "a", "b")}, monotone=False)
    assert made.combined("low", 0) == "c"


@pytest.mark.parametrize("made", [scheme(), *(read_scheme(n) for n in list_schemes())], ids=lambda s: s.name)
def test_a_scheme_written_is_the_scheme_read_and_keeps_its_hash(tmp_path: Path, made: Any) -> None:
    derived = replace(
        made, source=SchemeSource("derived", "us", cohort="ours", seed=7, method="search"), horizon_years=5.0
    )
    for one in (made, derived):
        (tmp_path / "s.toml").write_bytes(scheme_bytes(one))
        again = read_scheme(tmp_path / "s.toml")
        assert again == one
        assert again.sha256 == one.sha256
        assert again.file_sha256


def test_any_change_of_the_content_changes_the_hash() -> None:
    hashes = {
        scheme().sha256,
        scheme(cutoffs=(1, 2)).sha256,
        scheme(base_definition="ang2010").sha256,
        scheme(endpoint="os").sha256,
        scheme(source=replace(SOURCE, note="x")).sha256,
        scheme(mapping={**scheme().mapping, "low": ("a", "b", "b")}).sha256,
    }
    assert len(hashes) == 6
    assert scheme(name="mine").sha256 == scheme().sha256


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("name = ", "it is not TOML"),
        ("name = 'x'\n", "it is not a scheme"),
        ("odd = 1\n", "it is not a scheme"),
        ("\xff", "it is not TOML"),
    ],
)
def test_a_file_that_is_no_scheme_is_one_sentence(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(InputError) as caught:
        read_scheme(path)
    assert part in str(caught.value)


def test_an_unknown_name_lists_those_that_are_shipped() -> None:
    with pytest.raises(UsageError, match="count-0-1-2plus"):
        read_scheme("jco-2025")


def test_none_is_shipped_under_the_papers_name() -> None:
    for name in list_schemes():
        content = read_scheme(name).content()
        assert not any(
            word in f"{name} {content['title']}".casefold()
            for word in ("kann", "jco", "paper", "ai-ene 2025")
        )
