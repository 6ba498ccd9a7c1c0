"""A review without networks: drawings are measured by counting voxels, so that geometry is tested alone."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from aiene.export.source_lookup import Images
from aiene.finished_runs import cases_of, every_case, read_run
from aiene.geometry.grid import Volume
from aiene.results.records import CaseArrays, CaseResult
from aiene.results.reviews import ReviewStore
from aiene.review.session import Review
from builders.export_runs import Planted, node_result


class CountingReview(Review):
    """Each connected part of the nodes is a node; the first counts as ENE."""

    def __init__(self, out: Path, reader: str = "anna", *, blind: bool = False, groups: Any = None) -> None:
        self.out, self.blind, self.groups = out, blind, groups
        self.run = read_run(out)
        self.store = ReviewStore(out, reader)
        self.results = {r.case_id: r for r in cases_of(out) if isinstance(r, CaseResult)}
        self.unread = [r for r in every_case(out) if r.case_id not in self.results]
        self._images = Images.of_run(self.run)
        self._ready, self._scenes = OrderedDict(), OrderedDict()
        self._measuring, self._preparing, self._opening = (threading.Lock() for _ in range(3))

    def _prepare_quietly(self, case_id: str) -> None:
        """Nothing to prepare."""

    def measure(self, case_id: str, labels: Volume, joins: Any) -> tuple[CaseResult, CaseArrays]:
        parts, count = ndimage.label(labels.array == 2, np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        order = np.argsort(-sizes, kind="stable")
        nodes = np.zeros(labels.array.shape, np.uint16)
        found = []
        for rank, part in enumerate(order.tolist(), start=1):
            nodes[parts == part + 1] = rank
            planted = Planted((0.5, 0.5, 0.5), 1.0, ene=0.9 if rank == 1 else 0.1)
            found.append(node_result(f"GTVn_{rank:02d}", planted, nodes == rank, labels.grid, axes=False))
        was = self.results[case_id]
        result = CaseResult(
            case_id,
            "ok" if found else "no_nodes",
            nodes=tuple(found),
            has_primary=bool((labels.array == 1).any()),
            facts=was.facts,
        )
        return result, CaseArrays(labels, Volume(nodes, labels.grid))
