"""A scheme: how a base group and a node count make a combined group. It is data and carries its own hash.

Schemes are kept as small TOML files; some are shipped with the package.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from aiene.errors import InputError, UsageError
from aiene.hashing import digest, file_sha256
from aiene.risk.table.endpoints import ALIASES

Base = Literal["none", "rtog0129", "ajcc7", "ajcc8", "ajcc8_p16_positive", "ajcc8_p16_negative", "ajcc9"]

_POSITIVE = ("I", "II", "III", "IV")
_NEGATIVE = ("0", "I", "II", "III", "IVA", "IVB", "IVC")
BASE_GROUPS: dict[str, tuple[str, ...]] = {
    "none": ("all",),
    "rtog0129": ("low", "intermediate", "high"),
    "ajcc7": _NEGATIVE,
    "ajcc8": ("0", "I", "II", "III", "IV", "IVA", "IVB", "IVC"),
    "ajcc8_p16_positive": _POSITIVE,
    "ajcc8_p16_negative": _NEGATIVE,
    "ajcc9": _POSITIVE,
}
"""Groups of each base, best first; a scheme maps every one of them."""

ENDPOINTS = ("os", "dm", "lrf", "dfs", "dmfs")
DEFINITIONS = ("fakhry2019", "ang2010")


@dataclass(frozen=True)
class SchemeSource:
    """Where the numbers of a scheme come from.

    Parameters
    ----------
    kind : `prespecified`, or `derived` from outcomes of a cohort.
    by : who specified it.
    citation, date : of a publication or protocol.
    cohort, seed, method : of a derivation.
    note : what a reader must know.
    """

    kind: Literal["prespecified", "derived"]
    by: str
    citation: str = ""
    date: str = ""
    cohort: str = ""
    seed: int | None = None
    method: str = ""
    note: str = ""


@dataclass(frozen=True)
class Scheme:
    """How a base group and a class of the marker make a combined group.

    Parameters
    ----------
    name : for file names and tables.
    base : grouping that exists before the marker.
    cutoffs : least count of the second class, the third, ...: (1, 2) makes 0, 1 and >=2.
    mapping : base group -> combined group for each class, in the order of the classes.
    groups : the combined groups, best first.
    source : where it comes from.
    title : one line for people.
    base_definition : for `rtog0129`, which reading.
    marker : column of the count.
    endpoint, horizon_years : what it was made for.
    monotone : more marker, or a worse base group, never gives a better combined group; checked where true.

    Raises
    ------
    UsageError : a hole in the mapping, groups that do not fit, or cut-offs that do not rise.
    """

    name: str
    base: Base
    cutoffs: tuple[int, ...]
    mapping: Mapping[str, tuple[str, ...]]
    groups: tuple[str, ...]
    source: SchemeSource
    title: str = ""
    base_definition: Literal["fakhry2019", "ang2010"] = "fakhry2019"
    marker: str = "n_ai_ene"
    endpoint: str = "dm"
    horizon_years: float | None = None
    monotone: bool = True
    file_sha256: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for check in (self._wrong_words, self._wrong_cutoffs, self._holes, self._not_monotone):
            problem = check()
            if problem:
                raise UsageError(f"scheme {self.name}: {problem}.")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the marker's classes: `0`, `1`, `>=2`."""
        edges = (0, *self.cutoffs)
        names = [f"{a}" if b == a + 1 else f"{a}-{b - 1}" for a, b in pairwise(edges)]
        return (*names, f">={edges[-1]}")

    @property
    def base_groups(self) -> tuple[str, ...]:
        """Groups of the base, best first."""
        return BASE_GROUPS[self.base]

    def combined(self, base_group: str, count: int) -> str:
        """The combined group of one patient.

        Raises
        ------
        KeyError : no such base group.
        """
        return self.mapping[base_group][sum(count >= cut for cut in self.cutoffs)]

    def content(self) -> dict[str, Any]:
        """What the scheme says, as JSON values."""
        made = asdict(self)
        made.pop("file_sha256")
        made["mapping"] = {name: list(row) for name, row in self.mapping.items()}
        return made | {"cutoffs": list(self.cutoffs), "groups": list(self.groups)}

    @property
    def sha256(self) -> str:
        """Hash of the content: the same whatever the layout of the file."""
        return digest(self.content())

    def _wrong_words(self) -> str:
        if not self.name.strip():
            return "it needs a name"
        if self.base not in BASE_GROUPS:
            return f"base {self.base} is not one of {', '.join(BASE_GROUPS)}"
        if self.base_definition not in DEFINITIONS:
            return f"base_definition {self.base_definition} is not one of {', '.join(DEFINITIONS)}"
        if self.endpoint not in ENDPOINTS:
            return f"endpoint {self.endpoint} is not one of {', '.join(ENDPOINTS)}"
        if self.source.kind not in ("prespecified", "derived"):
            return "source.kind is prespecified or derived"
        if not self.source.by.strip():
            return "source.by must name who specified it"
        if self.source.kind == "derived" and not (self.source.cohort and self.source.method):
            return "a derived scheme must state source.cohort and source.method"
        return ""

    def _wrong_cutoffs(self) -> str:
        if any(not isinstance(cut, int) or isinstance(cut, bool) or cut < 1 for cut in self.cutoffs):
            return "cutoffs are whole numbers from 1 on"
        if list(self.cutoffs) != sorted(set(self.cutoffs)):
            return "cutoffs must rise"
        return "" if self.cutoffs else "it has no cutoffs"

    def _holes(self) -> str:
        missing = [group for group in self.base_groups if group not in self.mapping]
        if missing:
            return f"the mapping has no row for {', '.join(missing)}"
        foreign = [group for group in self.mapping if group not in self.base_groups]
        if foreign:
            return f"base {self.base} has no group {', '.join(foreign)}"
        for group, row in self.mapping.items():
            if len(row) != len(self.classes):
                return f"{group} maps {len(row)} classes, and the cutoffs give {len(self.classes)}"
        if len(set(self.groups)) != len(self.groups):
            return "a group is listed twice"
        used = {word for row in self.mapping.values() for word in row}
        if used != set(self.groups):
            odd = sorted(used ^ set(self.groups))
            return f"groups and mapping do not use the same names ({', '.join(odd)})"
        return ""

    def _not_monotone(self) -> str:
        if not self.monotone:
            return ""
        place = {group: number for number, group in enumerate(self.groups)}
        rows = [[place[word] for word in self.mapping[group]] for group in self.base_groups]
        for group, row in zip(self.base_groups, rows, strict=True):
            if row != sorted(row):
                return (
                    f"{group} gets better with more {self.marker}; set monotone = false if that is intended"
                )
        if any(list(column) != sorted(column) for column in zip(*rows, strict=True)) and self.base != "ajcc8":
            return "a worse base group gets a better group; set monotone = false if that is intended"
        return ""


# TOML files


class _SourceFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: str
    by: str
    citation: str = ""
    date: str = ""
    cohort: str = ""
    seed: int | None = None
    method: str = ""
    note: str = ""


class _SchemeFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    base: str
    cutoffs: list[int]
    groups: list[str]
    source: _SourceFile
    mapping: dict[str, list[str]]
    title: str = ""
    base_definition: str = "fakhry2019"
    marker: str = "n_ai_ene"
    endpoint: str = "dm"
    horizon_years: float | int | None = None
    monotone: bool = True


def list_schemes() -> tuple[str, ...]:
    """Names of the schemes that come with the package."""
    folder = resources.files("aiene.risk.schemes") / "data"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def read_scheme(path_or_name: Path | str) -> Scheme:
    """A scheme from a file, or one that is shipped, by its name.

    Raises
    ------
    UsageError : no such file or name, or a scheme with holes.
    InputError : the file is no scheme.
    """
    path = Path(path_or_name)
    if not path.is_file():
        shipped = Path(str(resources.files("aiene.risk.schemes") / "data" / f"{path_or_name}.toml"))
        if str(path_or_name) not in list_schemes():
            raise UsageError(
                f"{path.name}: no such scheme; name a file, or one of {', '.join(list_schemes())}."
            )
        path = shipped
    return _parsed(path, _content(path))


def scheme_bytes(scheme: Scheme) -> bytes:
    """A scheme as its TOML file holds it."""
    content = scheme.content()
    lines = ["# A scheme of aiene: how a base group and the number of AI-ENE nodes make a combined group."]
    for key in ("name", "title", "base", "base_definition", "marker", "cutoffs", "groups", "endpoint",
                "horizon_years", "monotone"):  # fmt: skip
        lines += [f"{key} = {_toml(content[key])}"] if content[key] is not None else []
    lines += ["", f"# columns: {', '.join(scheme.classes)}", "[mapping]"]
    lines += [f"{_toml(group)} = {_toml(list(scheme.mapping[group]))}" for group in scheme.base_groups]
    lines += ["", "[source]"]
    lines += [
        f"{key} = {_toml(value)}" for key, value in content["source"].items() if value not in (None, "")
    ]
    return ("\n".join(lines) + "\n").encode()


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, f"it is not TOML ({error})", "see docs/risk.md for a scheme file") from error
    except OSError as error:
        raise InputError(path, "it cannot be read", "name a scheme file") from error


def _parsed(path: Path, content: dict[str, Any]) -> Scheme:
    try:
        file = _SchemeFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"it is not a scheme file ({where}: {first['msg'][0].lower()}{first['msg'][1:]})"
        raise InputError(path, problem, "see docs/risk.md for a scheme file") from error
    return Scheme(
        name=file.name,
        base=file.base,  # type: ignore[arg-type]  # checked by Scheme itself
        cutoffs=tuple(file.cutoffs),
        mapping={group: tuple(row) for group, row in file.mapping.items()},
        groups=tuple(file.groups),
        source=SchemeSource(**file.source.model_dump()),
        title=file.title,
        base_definition=file.base_definition,  # type: ignore[arg-type]
        marker=file.marker,
        endpoint=ALIASES.get(file.endpoint, file.endpoint),
        horizon_years=None if file.horizon_years is None else float(file.horizon_years),
        monotone=file.monotone,
        file_sha256=file_sha256(path),
    )
