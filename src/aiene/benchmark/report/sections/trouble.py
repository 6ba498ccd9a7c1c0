"""What is not in the figures, and why: nothing is left out in silence."""

from __future__ import annotations

from aiene.benchmark.report.cells import TableBuilder, dig, words
from aiene.benchmark.report.record import Item, Section, Table, Text
from aiene.benchmark.report.sections.wording import KINDS, count
from aiene.benchmark.report.source import Source


def trouble(source: Source) -> Section:
    """The chapter."""
    items: list[Item] = [
        *_models(source),
        *_pairing(source),
        *_failed(source),
        *_ene(source),
        *_warned(source),
    ]
    if not items:
        items.append(Text("Every model was run on every case, and no image, mask or row was left out."))
    return Section("left-out", "What was left out", tuple(items))


def _models(source: Source) -> list[Item]:
    failed = [model for model in source.models if model.get("status") != "ok"]
    if not failed:
        return []
    builder = TableBuilder("Models that could not be run", ("Model", "Kind", "Reason"))
    for model in failed:
        kind = KINDS.get(str(model.get("kind")), model.get("kind"))
        builder.row(words(model["name"]), words(kind), words(model.get("reason")))
    return [builder.table()]


def _pairing(source: Source) -> list[Item]:
    pairing = source.summary.get("pairing") or {}
    items: list[Item] = []
    for key, said in (
        ("images_without_mask", "Images without a mask"),
        ("masks_without_image", "Masks without an image"),
    ):
        listed = [str(one) for one in pairing.get(key) or []]
        if listed:
            items.append(Text(f"{said} ({len(listed)}): {', '.join(listed)}."))
    refused = pairing.get("refused") or []
    if refused:
        builder = TableBuilder("Cases that could not be used for any model", ("Case", "Reason"))
        for one in refused:
            builder.row(words(one.get("case_id")), words(one.get("reason")))
        items.append(builder.table())
    beyond = int(pairing.get("beyond_max_cases") or 0)
    if beyond:
        items.append(
            Text(f"{count(beyond, 'case')} beyond --max-cases {'was' if beyond == 1 else 'were'} not taken.")
        )
    notes = tuple(str(note) for note in pairing.get("notes") or [])
    return [*items, *([Text("On pairing:", notes)] if notes else [])]


def _failed(source: Source) -> list[Item]:
    rows = [r for r in source.rows if r.get("status") == "failed" and r.get("model") and r.get("case_id")]
    return [_of_cases("Cases that failed in a model", "Reason", rows, "reason")] if rows else []


def _warned(source: Source) -> list[Item]:
    rows = [r for r in source.rows if r.get("warnings") and r.get("model")]
    return [_of_cases("Warnings", "Warning", rows, "warnings")] if rows else []


def _of_cases(title: str, what: str, rows: list[dict[str, str]], column: str) -> Table:
    """A table of models and cases, the cases of one model and one reason in one row."""
    together: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        together.setdefault((row["model"], row.get(column) or ""), []).append(row.get("case_id") or "")
    builder = TableBuilder(title, ("Model", "Cases", what))
    for (model, reason), cases in together.items():
        builder.row(words(model), words(", ".join(cases)), words(reason))
    return builder.table()


def _ene(source: Source) -> list[Item]:
    unmatched = dig(source.summary, "ene_csv", "unmatched") or []
    if not unmatched:
        return []
    title = "Rows of the ENE file that belong to no node"
    builder = TableBuilder(title, ("Row", "Case", "Reason"))
    for one in unmatched:
        builder.row(words(one.get("row")), words(one.get("case_id")), words(one.get("reason")))
    return [builder.table()]
