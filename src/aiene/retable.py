"""The tables of a run made again with other choices of what counts; no network runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiene.errors import UsageError
from aiene.export.run_reader import RunRecord, read_run
from aiene.nodes.node import CountingRule
from aiene.preprocess.profile import profile_named
from aiene.provenance import version
from aiene.results.atomic import make_folder
from aiene.results.records import CaseResult, recounted
from aiene.results.store import RECOUNTED, RunStore

RECORD = "retable.json"
"""How the tables of a folder were made."""


@dataclass(frozen=True)
class Retabled:
    """New tables of a run.

    Parameters
    ----------
    before, after : the cases as the run counted them, and as they are counted now, by case id.
    tables : path of each table by name.
    finished : the run came to its end; else the tables hold the cases that are done.
    notice : the sentence that stands wherever results of the run's bundle are shown.
    """

    before: tuple[CaseResult, ...]
    after: tuple[CaseResult, ...]
    tables: dict[str, Path]
    finished: bool
    notice: str


def retable(
    out: Path, *, ene_threshold: float | None = None, pos_from: float | None = None, to: Path | None = None
) -> Retabled:
    """Write the tables of a run with another count of nodes; the run's own tables stay as they are.

    Parameters
    ----------
    out : the folder that the run filled.
    ene_threshold : a node counts as ENE where its probability is over this; None: as in the run.
    pos_from : a node counts where its `pos` is this or more; None: as in the run.
    to : folder for the tables; None is one in `out`, named after the threshold.

    Raises
    ------
    UsageError : no run there, a number outside 0 to 1, or `to` holds the tables of a run.
    InputError : the record of a case cannot be read.
    OutputError : a table cannot be written.
    """
    store = RunStore(out)
    results, finished = store.told()
    run = read_run(out)
    before, spread = run.rule, spread_of(run)
    now = CountingRule(
        before.ene_threshold if ene_threshold is None else ene_threshold,
        before.pos_from if pos_from is None else pos_from,
    )
    after = [recounted(result, before, now, spread) for result in results]
    if to is not None and any(to.glob("run*.json")):
        raise UsageError(f"{to.name} holds the tables of a run, which stay; choose another folder with -o.")
    target = RunStore(out / _name(now), store.owned) if to is None else RunStore(to)
    make_folder(target.root)
    tables = target.write_tables(
        after, axes=run.axes, model=run.maker.bundle_name, rule=now, now=run.maker.started
    )
    target.owned.write_json(target.root / RECORD, _record(run, before, now, len(after)))
    return Retabled(tuple(results), tuple(after), tables, finished, run.maker.notice)


def spread_of(run: RunRecord) -> float | None:
    """How far the registration of a run's profile moves an ENE probability; None: not at all."""
    return profile_named(run.profile, rescue=False).ene_spread


def _name(now: CountingRule) -> str:
    least = f"-pos-from-{now.pos_from!r}" if now.pos_from else ""
    return f"{RECOUNTED}{now.ene_threshold!r}{least}"


def _record(run: RunRecord, before: CountingRule, now: CountingRule, cases: int) -> dict[str, Any]:
    maker = run.maker
    return {
        "format": 1,
        "ene_threshold": now.ene_threshold,
        "pos_from": now.pos_from,
        "cases": cases,
        "run": {
            "started": maker.started.isoformat(),
            "ene_threshold": before.ene_threshold,
            "pos_from": before.pos_from,
            "bundle": maker.bundle_name,
            "bundle_sha256": maker.bundle_sha256,
            "aiene": maker.software_version,
        },
        "aiene": version(),
    }
