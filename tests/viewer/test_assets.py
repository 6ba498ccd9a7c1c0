"""What is shipped with the pages: one version of NiiVue, its licences, nothing that asks outside."""

from __future__ import annotations

import json
import re
from pathlib import Path

from aiene.viewer.scripts import LICENCES, NIIVUE, as_json, asset

WEB = Path(__file__).resolve().parents[2] / "web"


def test_the_bundle_is_of_the_version_that_is_named_and_has_its_licences() -> None:
    wanted = json.loads((WEB / "package.json").read_text())["devDependencies"]["@niivue/niivue"]
    assert f"NiiVue {wanted}" in asset(NIIVUE)[:200]
    assert f"NiiVue {wanted}" in (WEB / "README.md").read_text()
    licences = asset(LICENCES)
    assert f"@niivue/niivue {wanted} (BSD-2-Clause)" in licences
    for part in (
        "gl-matrix",
        "nifti-reader-js",
        "fflate",
        "array-equal",
        "@lukeed/uuid",
        "@ungap/structured-clone",
    ):
        assert re.search(rf"^{re.escape(part)} \d", licences, flags=re.MULTILINE), part
    assert licences.count("Permission is hereby granted") + licences.count("BSD 2-Clause") >= 5


def test_no_script_can_end_its_element() -> None:
    for name in (NIIVUE, "volume.js", "viewer.js", "report.js", "cohort.js"):
        assert "</script" not in asset(name).lower(), name
        assert "<!--" not in asset(name), name


def test_json_in_a_page_cannot_end_its_element() -> None:
    nasty = {"id": "</script><!-- \u2028"}
    assert "<" not in as_json(nasty)
    assert json.loads(as_json(nasty)) == nasty
