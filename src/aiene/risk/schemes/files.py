"""Schemes as small TOML files: read, written, and those that are shipped."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from aiene.errors import InputError, UsageError
from aiene.hashing import file_sha256
from aiene.results.atomic import make_folder, write_bytes
from aiene.risk.schemes.scheme import Scheme, SchemeSource


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


def write_scheme(scheme: Scheme, path: Path) -> None:
    """Write a scheme so that people can read it and `read_scheme` gives it back.

    Raises
    ------
    OutputError : it cannot be written.
    """
    make_folder(path.parent)
    write_bytes(path, scheme_bytes(scheme))


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
        problem = f"it is no scheme ({where}: {first['msg'][0].lower()}{first['msg'][1:]})"
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
        endpoint=file.endpoint,
        horizon_years=None if file.horizon_years is None else float(file.horizon_years),
        monotone=file.monotone,
        file_sha256=file_sha256(path),
    )
