"""One way in for every collection: read, understand, check, and say what was understood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from aiene.errors import UsageError
from aiene.hashing import file_sha256
from aiene.risk.importers import generic, head_neck_pet_ct, hecktor, hn1, hnscc, princess_margaret
from aiene.risk.importers.generic import Mapping, read_mapping
from aiene.risk.importers.source import ImportOptions, PreviewLine, Source
from aiene.risk.table.columns import TIMED
from aiene.risk.table.endpoints import CONTROL
from aiene.risk.table.files import read_raw
from aiene.risk.table.read import finish, read_table
from aiene.risk.table.values import Findings

Build = Callable[[Source, ImportOptions], pd.DataFrame]
Read = Callable[[Path, ImportOptions], pd.DataFrame]


@dataclass(frozen=True)
class Importer:
    """One collection.

    Parameters
    ----------
    name : for `--from`.
    title : one line for people.
    build : the canonical columns of a raw table.
    read : the raw table of a file or folder.
    experimental : the official file was not seen.
    """

    name: str
    title: str
    build: Build
    read: Read = lambda path, options: read_raw(path, sheet=options.sheet)
    experimental: bool = False


@dataclass(frozen=True)
class Imported:
    """A canonical table and how it came about.

    Parameters
    ----------
    table : canonical, see `read_table`.
    provenance : source, file hash, units, origin, endpoints, ignored columns.
    warnings : what the user should look at; values that were dropped come first.
    preview : what was understood, column by column.
    """

    table: pd.DataFrame
    provenance: dict[str, Any]
    warnings: tuple[str, ...]
    preview: tuple[PreviewLine, ...]
    notes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


SOURCES: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        Importer("radcure", princess_margaret.TITLE, princess_margaret.build),
        Importer(
            "opc-radiomics", princess_margaret.OPC_TITLE, princess_margaret.build_opc, experimental=True
        ),
        Importer("head-neck-pet-ct", head_neck_pet_ct.TITLE, head_neck_pet_ct.build, head_neck_pet_ct.read),
        Importer("hnscc", hnscc.TITLE, hnscc.build),
        Importer("hn1", hn1.TITLE, hn1.build),
        Importer("hecktor", hecktor.TITLE, hecktor.build, hecktor.read),
    )
}
"""The collections by name; `generic` with a mapping file is beside them."""


def import_table(
    path: Path,
    source: str,
    mapping: Path | None = None,
    lenient: bool = False,
    *,
    options: ImportOptions | None = None,
    default_site: str | None = None,
) -> Imported:
    """Any known table as the canonical one.

    Parameters
    ----------
    path : the collection's table (or the folder of its tables).
    source : a name of `SOURCES`, `generic` (needs `mapping`) or `canonical`.
    mapping : see `read_mapping`; for a collection only its `[headers]` are used, where a copy has renamed
        columns.
    lenient : values that cannot be right count as missing, with a warning.
    options : what the table does not say itself.
    default_site : site of every patient where the table tells none.

    Raises
    ------
    UsageError : an unknown source, or `generic` without mapping.
    InputError, TableError : the table cannot be used as it is.
    """
    chosen = options or ImportOptions()
    name = source.strip().casefold().replace("_", "-")
    if name == "canonical":
        return _canonical(path, lenient, chosen, default_site)
    plan = None if mapping is None else read_mapping(mapping)
    findings = Findings(path.name, lenient, default_site=default_site, edition=chosen.edition)
    if name == "generic":
        if plan is None:
            raise UsageError(
                "--from generic needs a mapping file: write one with aiene risk import --template, fill it "
                "and name it with --map."
            )
        own = Importer(name, generic.TITLE, partial(generic.build_by, mapping=plan))
        return _finished(path, own, plan, findings, chosen, mapping)
    if name not in SOURCES:
        raise UsageError(f"{source}: no such source; known are {', '.join([*SOURCES, 'generic'])}.")
    return _finished(path, SOURCES[name], plan, findings, chosen, mapping)


def _canonical(path: Path, lenient: bool, options: ImportOptions, default_site: str | None) -> Imported:
    table = read_table(
        path, lenient=lenient, default_site=default_site, sheet=options.sheet, edition=options.edition
    )
    preview = tuple(
        PreviewLine(str(c), str(c), "canonical", int(table[c].notna().sum()), int(table[c].isna().sum()))
        for c in table.columns
        if table[c].notna().any()
    )
    return _record(table, "canonical", "a canonical table", preview, {"ignored_columns": []})


def _finished(
    path: Path,
    importer: Importer,
    plan: Mapping | None,
    findings: Findings,
    options: ImportOptions,
    mapping: Path | None,
) -> Imported:
    wanted = options if plan is None or plan.sheet is None else replace(options, sheet=plan.sheet)
    raw = importer.read(path, wanted)
    source = Source(raw, findings, plan.headers if plan is not None else {})
    built = importer.build(source, wanted)
    if importer.experimental:
        findings.warn(f"the importer {importer.name} is experimental: the official file was not seen")
    table = finish(built, findings)
    facts = {
        "ignored_columns": source.ignored,
        "options": asdict(wanted),
        "mapping_sha256": None if mapping is None else file_sha256(mapping),
    }
    table.attrs.update(
        source=importer.name, source_name=path.name, source_sha256=file_sha256(path) if path.is_file() else ""
    )
    return _record(table, importer.name, importer.title, tuple(source.preview), facts)


def _record(
    table: pd.DataFrame, name: str, title: str, preview: tuple[PreviewLine, ...], facts: dict[str, Any]
) -> Imported:
    origins = sorted({str(origin) for origin in table["time_origin"].dropna().unique()})
    provenance = {
        "source": name,
        "title": title,
        "file": table.attrs["source_name"],
        "sha256": table.attrs["source_sha256"],
        "patients": len(table),
        "time_origin": origins[0] if len(origins) == 1 else origins,
        "endpoints": [CONTROL.get(e, e) for e in TIMED if table[f"{e}_event"].notna().any()],
        **facts,
    }
    table.attrs["provenance"] = provenance
    warnings, notes, dropped = (tuple(table.attrs[key]) for key in ("warnings", "notes", "dropped"))
    return Imported(table, provenance, (*dropped, *warnings), preview, notes, dropped)
