"""What is shipped with the pages: one version of NiiVue, its licences, nothing that asks outside."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import aiene
from aiene.viewer.embedded import LICENCES, NIIVUE, as_json, asset

PACKAGE = Path(aiene.__file__).parent
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


PAGES = ("viewer/assets/pages.css", "report/templates/report.html.j2", "report/templates/calculator.html.j2")


def schemes(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """The colours of a style sheet by name: light, then dark."""
    light, dark, *_ = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", block))
        for block in re.findall(r":root \{([^}]*)\}", text)
    )
    return light, dark


def luminance(colour: str) -> float:
    """Relative luminance, by WCAG 2.1."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * one for one in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("dark", [False, True])
def test_words_can_be_read_in_light_and_in_dark(page: str, dark: bool) -> None:
    both = schemes((PACKAGE / page).read_text(encoding="utf-8"))
    assert both[0].keys() == both[1].keys()
    colours = both[dark]
    assert (luminance(colours["paper"]) < 0.05) is dark
    for name in colours.keys() & {"ink", "faint", "link", "alarm", "good", "ene", "none"}:
        for ground in colours.keys() & {"paper", "wash"}:
            light, deep = sorted((luminance(colours[name]), luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (deep + 0.05) >= 4.5, (name, ground)  # WCAG 2.1, AA
