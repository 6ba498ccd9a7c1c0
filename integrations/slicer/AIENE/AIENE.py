"""3D Slicer: run `aiene` on a CT and load its segmentation, with the nodes by name, and the table.

Add this folder under Edit > Application Settings > Modules. `aiene` is a program of its own (its Python is
not Slicer's): name it in the module, or put it on the PATH. Research software, not a medical device.
"""

from __future__ import annotations

import csv
import subprocess
import tempfile
from pathlib import Path
from typing import Any

try:
    import slicer
    from slicer.ScriptedLoadableModule import (
        ScriptedLoadableModule,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleWidget,
    )
except ImportError:  # outside Slicer: the parts below that need it not can be tested
    slicer = None
    ScriptedLoadableModule = ScriptedLoadableModuleLogic = ScriptedLoadableModuleWidget = object

COLUMNS = ("name", "side", "native_volume_mm3", "pos", "ene", "ene_classification")


def command(program: str, ct: Path, out: Path, device: str = "auto") -> list[str]:
    """The words of the command line."""
    return [program, "run", str(ct), "-o", str(out), "--device", device]


def node_rows(table: Path) -> list[dict[str, str]]:
    """The nodes of `nodes.csv`; a case without nodes has a row without a name, which is left out."""
    with table.open(encoding="utf-8", newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["name"]]


def segment_names(rows: list[dict[str, str]]) -> dict[int, str]:
    """What the segment of each label value of `nodes.nii.gz` is called: GTVn_01 is 1."""
    return {int(row["name"].rsplit("_", 1)[1]): f"{row['name']} ENE {row['ene'] or '-'}" for row in rows}


class AIENE(ScriptedLoadableModule):  # type: ignore[misc,valid-type]
    """The module's entry in Slicer's menu."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title, parent.categories = "AI-ENE", ["Segmentation"]
        parent.helpText = "Lymph nodes and extranodal extension. Research software, not a medical device."


class AIENEWidget(ScriptedLoadableModuleWidget):  # type: ignore[misc,valid-type]
    """A choice of the CT, and a button."""

    def setup(self) -> None:
        """Build the panel."""
        import ctk
        import qt

        super().setup()
        self.program = qt.QLineEdit("aiene")
        self.ct = slicer.qMRMLNodeComboBox()
        self.ct.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.ct.setMRMLScene(slicer.mrmlScene)
        button = qt.QPushButton("Find lymph nodes")
        button.connect("clicked()", self.run)
        form = ctk.ctkCollapsibleButton()
        form.text = "AI-ENE (research only)"
        rows = qt.QFormLayout(form)
        rows.addRow("program", self.program)
        rows.addRow("CT", self.ct)
        rows.addRow(button)
        self.layout.addWidget(form)

    def run(self) -> None:
        """Run and show, or tell the reason."""
        with slicer.util.tryWithErrorDisplay("AI-ENE failed", waitCursor=True):
            AIENELogic().run(self.ct.currentNode(), self.program.text)


class AIENELogic(ScriptedLoadableModuleLogic):  # type: ignore[misc,valid-type]
    """The work."""

    def run(self, ct: Any, program: str) -> None:
        """Save the CT, run, load segmentation and table."""
        with tempfile.TemporaryDirectory() as name:
            image, out = Path(name) / "ct.nrrd", Path(name) / "out"
            slicer.util.saveNode(ct, str(image))
            done = subprocess.run(
                command(program, image, out),
                capture_output=True,
                text=True,
                check=False,
                env=slicer.util.startupEnvironment(),
            )
            if done.returncode != 0:
                raise RuntimeError(done.stderr[-2000:])
            (case,) = (out / "cases").iterdir()
            self._load(case, node_rows(out / "nodes.csv"), ct)

    def _load(self, case: Path, rows: list[dict[str, str]], ct: Any) -> None:
        segmentation = slicer.util.loadSegmentation(str(case / "nodes.nii.gz"))
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
        found = segmentation.GetSegmentation()
        names = segment_names(rows)
        for segment in (found.GetNthSegment(place) for place in range(found.GetNumberOfSegments())):
            segment.SetName(names.get(segment.GetLabelValue(), segment.GetName()))
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "AI-ENE nodes")
        for column in COLUMNS:
            array = table.AddColumn()
            array.SetName(column)
        for row in rows:
            place = table.AddEmptyRow()
            for number, column in enumerate(COLUMNS):
                table.SetCellText(place, number, row.get(column, ""))
