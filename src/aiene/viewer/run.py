"""The pages of a run: one for each patient, written side by side, and the cohort's over them.

On the cohort's page is every patient in one table, failures first, and the pictures to leaf through.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from aiene.export.source_lookup import Images
from aiene.finished_runs import RunRecord, every_case, read_run
from aiene.parallel import Job, run_jobs
from aiene.results.atomic import elsewhere
from aiene.results.records import CaseResult
from aiene.results.store import RunStore
from aiene.results.tables import entropy_bits
from aiene.viewer import embedded
from aiene.viewer.case_page import Model, case_page, found_of, model_of
from aiene.viewer.risk_groups import Group, read_risk_groups


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
    statuses = [card.result.status for card in cards]
    return embedded.page(
        "cohort.html.j2",
        run.maker.notice,
        ("cohort.js",),
        ("cohort.css",),
        run=run,
        counts={s: statuses.count(s) for s in ("ok", "no_nodes", "failed", "skipped")},
        warned=sum(bool(card.result.warnings) for card in cards),
        grouped=any(card.group for card in cards),
        content=embedded.as_json([_row(card) for card in cards]),
        thumbnails=embedded.as_json([b64encode(card.thumbnail).decode() for card in cards]),
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


PAGE = "report.html"
_TOGETHER = 4  # cases of one job: the bundle is read once for them
_ELSEWHERE = (
    "correct that, or copy the whole folder of the run to a place where you can write, "
    "and make the pages there"
)


@dataclass(frozen=True)
class ReportSummary:
    """What was written.

    Parameters
    ----------
    cohort : the cohort's page.
    cards : a patient each, in byte order of their ids.
    """

    cohort: Path
    cards: tuple[Card, ...]

    @property
    def unseen(self) -> int:
        """Patients whose page cannot show all."""
        return sum(bool(card.problems) for card in self.cards)


class _Share(NamedTuple):
    out: Path
    run: RunRecord
    results: tuple[CaseResult, ...]
    images: Images
    groups: dict[str, Group]


def report_run(
    out: Path,
    *,
    images: Path | None = None,
    clinical: Path | None = None,
    id_pattern: str | None = None,
    jobs: int | None = None,
) -> ReportSummary:
    """Write `report.html` of every case and of the run.

    Parameters
    ----------
    out : the folder that a run filled; it may be half done.
    images : where the CTs lie now; None is where the run found them.
    clinical, id_pattern : a table of `aiene risk stratify`, and how a case id holds the patient's.
    jobs : processes; None is one per core.

    Raises
    ------
    UsageError : no results lie there.
    InputError : the clinical table cannot be used.
    OutputError : a page cannot be written, or something that is not ours lies in its place.
    """
    run = read_run(out)
    asked = None if clinical is None else read_risk_groups(clinical, id_pattern)
    results = every_case(out)
    counts = {r.case_id: r.n_ai_ene if r.status in ("ok", "no_nodes") else None for r in results}
    groups = {} if asked is None else asked.of(counts)
    images_of_run = Images.of_run(run, images)
    paged = [r for r in results if RunStore(out).case_folder(r.case_id).is_dir()]
    shares = [
        _Share(out, run, tuple(paged[i : i + _TOGETHER]), images_of_run, groups)
        for i in range(0, len(paged), _TOGETHER)
    ]
    work = [
        Job(share.results[0].case_id, _write_pages, (share,), 20.0 * len(share.results)) for share in shares
    ]
    with elsewhere(_ELSEWHERE):
        made = {c.result.case_id: c for cards in run_jobs(work, workers=jobs) for c in cards}
        cards = tuple(made.get(r.case_id) or Card(r, group=_name(groups, r)) for r in results)
        store = RunStore(out)
        store.owned.write(out / PAGE, cohort_page(cards, run).encode())
    return ReportSummary(out / PAGE, cards)


def _write_pages(share: _Share) -> list[Card]:
    store, model = RunStore(share.out), model_of(share.run)
    return [_write_page(store, share, result, model) for result in share.results]


def _write_page(store: RunStore, share: _Share, result: CaseResult, model: Model | None) -> Card:
    folder = store.case_folder(result.case_id)
    done = result.status in ("ok", "no_nodes")
    found = found_of(result, folder, share.images.ct(result) if done else "")
    group = share.groups.get(result.case_id)
    page = case_page(found, share.run, model=model, group=group, cohort=f"../../{PAGE}")
    store.owned.write(folder / PAGE, page.html.encode("utf-8", "backslashreplace"))
    href = f"cases/{quote(result.case_id, errors='surrogateescape')}/{PAGE}"
    return Card(result, href, page.thumbnail, page.problems, _name(share.groups, result))


def _name(groups: dict[str, Group], result: CaseResult) -> str:
    group = groups.get(result.case_id)
    return "" if group is None else group.name
