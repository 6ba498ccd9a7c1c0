"""The metrics of one case; how long they take is for `tools.measurements.benchmark_metrics_speed`."""

from __future__ import annotations

import numpy as np

from aiene.benchmark.metrics.segmentation import case_metrics

SPACING = (3.0, 1.0, 1.0)


def test_six_nodes_that_moved_by_a_voxel_are_found_beside_a_primary_tumour_that_did_too() -> None:
    axes = np.ogrid[:64, :160, :160]
    truth = np.zeros((64, 160, 160), np.uint8)
    prediction = truth.copy()
    places = ((20, 40, 40), (30, 60, 120), (40, 100, 40), (45, 110, 120), (15, 120, 60), (50, 50, 60))
    for label, centre, radius in [(2, p, 9 + 2 * k) for k, p in enumerate(places)] + [(1, (30, 80, 80), 18)]:
        for labels, shift in ((truth, 0), (prediction, 1)):
            squares = [((a - c - shift) * s) ** 2 for a, c, s in zip(axes, centre, SPACING, strict=True)]
            labels[sum(squares) <= radius**2] = label
    found = case_metrics(truth, prediction, SPACING)
    assert len(found.nodes.pairs) == 6


def test_a_stray_voxel_of_fine_spacing_is_a_node_and_no_error() -> None:
    truth = np.zeros((6, 20, 20), np.uint8)
    truth[1:4, 4:12, 4:12] = 2
    prediction = truth.copy()
    prediction[5, 18, 18] = 2
    found = case_metrics(truth, prediction, (1.25, 0.488, 0.488)).nodes
    assert (len(found.pairs), len(found.false)) == (1, 1)
    assert [node.short_axis_mm for node in found.predicted if node.number in found.false] == [0]
