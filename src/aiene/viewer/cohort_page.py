"""The page of the cohort: every patient in one table, failures first, and the pictures to leaf through."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from aiene.export.run_reader import RunRecord
from aiene.report.document import RESEARCH_ONLY
from aiene.report.page import filled
from aiene.results.records import CaseResult
from aiene.results.tables import entropy_bits
from aiene.viewer import scripts

_SCRIPTS = ("cohort.js",)


@dataclass(frozen=True)
class Card:
    """One patient on the page.

    Parameters
    ----------
    result : the record of the case.
    href : of its own page, relative to the cohort's; empty where it has none.
    thumbnail : JPEG; empty for none.
    problems : what of the case cannot be shown.
    group : the risk group, where a clinical table was given.
    """

    result: CaseResult
    href: str = ""
    thumbnail: bytes = b""
    problems: tuple[str, ...] = ()
    group: str = ""


def cohort_page(cards: Sequence[Card], run: RunRecord) -> str:
    """The page as HTML.

    Raises
    ------
    MissingExtraError : jinja2 is not installed.
    """
    scripts_used, style = [scripts.asset(name) for name in _SCRIPTS], scripts.asset("pages.css")
    style += scripts.asset("cohort.css")
    statuses = [card.result.status for card in cards]
    return filled(
        "cohort.html.j2",
        policy=scripts.policy(scripts_used, style),
        style=style,
        notice=f"{run.maker.notice} {RESEARCH_ONLY}",
        run=run,
        counts={s: statuses.count(s) for s in ("ok", "no_nodes", "failed", "skipped")},
        warned=sum(bool(card.result.warnings) for card in cards),
        grouped=any(card.group for card in cards),
        content=scripts.as_json([_row(card) for card in cards]),
        thumbnails=scripts.as_json([b64encode(card.thumbnail).decode() for card in cards]),
        scripts=scripts_used,
    )


def _row(card: Card) -> dict[str, object]:
    result = card.result
    counted = result.status in ("ok", "no_nodes")
    known = [node.ene for node in result.nodes if node.ene is not None]
    entropies = [bits for node in result.nodes if (bits := entropy_bits(node.ene)) is not None]
    return {
        "id": result.case_id,
        "href": card.href,
        "status": result.status,
        "reason": result.reason,
        "warnings": [*result.warnings, *card.problems],
        "count": result.n_ai_ene if counted else None,
        "nodes": len(result.nodes) if counted else None,
        "ene": max(known, default=None),
        "bits": max(entropies, default=None),
        "mm3": max((node.native_volume_mm3 for node in result.nodes), default=None),
        "group": card.group,
        "each": [[node.ene, round(node.native_volume_mm3 / 1000, 4)] for node in result.nodes],
    }
