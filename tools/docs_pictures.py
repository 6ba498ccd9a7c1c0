"""The pictures of the documentation, from a demo and a report: what a user would see.

python -m tools.docs_pictures aiene-demo docs/images
chromium --headless --screenshot=docs/images/risk-report.png --window-size=1000,980 REPORT/report.html
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from aiene.prediction import load_results

CASE = "phantom-nifti"
_HALF = 85  # pixels of 1 mm to each side of the spine


def demo_nodes(demo: Path, folder: Path) -> None:
    """The two largest nodes of a demo patient, each in its largest axial slice, seen from the feet."""
    (result,) = (r for r in load_results(demo / "results") if r.case_id == CASE)
    (case,) = (c for c in find_cases(demo / "phantoms")[0] if c.case_id == CASE)
    ct = read_case(case).volume.anatomical().array  # type: ignore[arg-type]
    nodes = result.node_map.anatomical().array
    figure, axes = plt.subplots(1, 2, figsize=(6.6, 3.5), dpi=130, layout="constrained")
    for axis, node in zip(axes, result.nodes[:2], strict=True):
        mask = nodes == node.record.value
        cut = int(mask.sum(axis=(1, 2)).argmax())
        axis.imshow(ct[cut], cmap="gray", vmin=-175, vmax=275)
        axis.contour(nodes[cut] > 0, levels=[0.5], colors=["#56b4e9"], linewidths=1)
        axis.contour(mask[cut], levels=[0.5], colors=["#e69f00"], linewidths=1.6)
        axis.set_title(
            f"{node.name}, {node.side}: {node.volume_mm3:.0f} mm3, ENE {node.ene:.4f}", fontsize=10
        )
        axis.set_axis_off()
        middle = np.median(np.argwhere(ct[cut] > 300), axis=0)  # of the bones
        axis.set_xlim(middle[1] - _HALF, middle[1] + _HALF)
        axis.set_ylim(middle[0] + _HALF, middle[0] - _HALF)
    figure.savefig(folder / "demo-nodes.png", metadata={"Software": None})


if __name__ == "__main__":
    demo_nodes(Path(sys.argv[1]), Path(sys.argv[2]))
