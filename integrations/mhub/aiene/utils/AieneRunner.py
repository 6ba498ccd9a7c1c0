"""MHub's runner: one CT series through `aiene run`, its label map and table back."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

from mhubio.core import IO, Instance, InstanceData, Module


@IO.ConfigInput("in_data", "dicom:mod=ct", the="CT of the head and neck")
class AieneRunner(Module):
    """`aiene run` on the DICOM files of an instance."""

    @IO.Instance()
    @IO.Input("in_data", the="CT of the head and neck")
    @IO.Output(
        "labels",
        "labels.nii.gz",
        "nifti:mod=seg:model=AIENE:roi=GTVP,GTVN",
        data="in_data",
        the="tumour and nodes",
    )
    @IO.Output(
        "table",
        "nodes.json",
        "json:type=output:model=AIENE",
        data="in_data",
        the="nodes with their probabilities",
    )
    def task(
        self, instance: Instance, in_data: InstanceData, labels: InstanceData, table: InstanceData
    ) -> None:
        out = Path(self.config.data.requestTempDir(label="aiene"))
        run_series(Path(in_data.abspath), out, Path(labels.abspath), Path(table.abspath))


def run_series(source: Path, out: Path, labels: Path, table: Path) -> None:
    """Run a folder of one series; its label map (1 GTVp, 2 GTVn) and its nodes as JSON."""
    subprocess.run(["aiene", "run", str(source), "-o", str(out), "--format", "dicom"], check=True)
    (case,) = (out / "cases").iterdir()
    shutil.copyfile(case / "labels.nii.gz", labels)
    with (out / "nodes.csv").open(encoding="utf-8", newline="") as stream:
        table.write_text(json.dumps(list(csv.DictReader(stream)), indent=2), encoding="utf-8")
