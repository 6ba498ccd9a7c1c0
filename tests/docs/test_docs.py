"""README and documentation: blocks run, commands and messages exist, the site builds with every link."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
import typer
from typer.testing import CliRunner

import aiene
from aiene.cli.app import app
from aiene.geometry.grid import to_sitk
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.results.nifti import write_nifti

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
NOTEBOOK = ROOT / "docs" / "notebooks" / "first_ct.ipynb"
SMALL = PhantomSettings(size=(70, 120, 120), spacing=(4.0, 2.2, 2.2), nodes=(2, 3), tilt_degrees=2.0)


@dataclass(frozen=True)
class Block:
    """A fenced block; `excuse` is why it does not run, from a comment above it."""

    page: Path
    line: int
    language: str
    text: str
    excuse: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(
        r"(?:^<!-- not run: (?P<excuse>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
        text,
        re.M | re.S,
    ):
        line = text[: found.start("text")].count("\n")
        yield Block(page, line, found["language"], found["text"], found["excuse"] or "")


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUNNABLE = ("python", "sh", "console")
RUN_PAGES = sorted({b.page for b in BLOCKS if b.language in RUNNABLE and not b.excuse})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the documentation speaks of: a CT, its contours, a folder of CTs, and a run of it."""
    folder = tmp_path_factory.mktemp("docs")
    phantom = make_phantom(910_001, SMALL)
    for parent, name, volume in (
        ("", "ct", phantom.ct),
        ("cts", "PT001", phantom.ct),
        ("", "contours", phantom.labels),
        ("contours", "PT001", phantom.labels),
    ):
        (folder / parent).mkdir(exist_ok=True)
        write_nifti(volume, folder / parent / f"{name}.nii.gz")
    sitk.WriteImage(to_sitk(aiene.Volume(phantom.ct.array, phantom.ct.grid)), str(folder / "ct.mha"))
    aiene.run_cohort(folder / "cts", folder / "OUT", masks=folder / "contours", device="cpu", jobs=1)
    shutil.copytree(folder / "OUT", folder / "results")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    names: dict[str, Any] = {"__name__": "docs"}
    for block in blocks_of(page):
        if block.excuse or block.language not in RUNNABLE:
            continue
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), names)
            continue
        output = ""
        for line in block.text.splitlines():
            command = line.removeprefix("$ ")
            if block.language == "sh" or line.startswith("$ "):
                words = shlex.split(command, comments=True)
                assert words[:1] in ([], ["aiene"]), (
                    f"{block}: mark what cannot run with <!-- not run: why -->"
                )
                if words:
                    done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
                    assert done.exit_code == 0, f"{block}: {command}\n{done.output}"
                    output = " ".join(done.output.split())
            elif line.strip():
                assert " ".join(line.split()) in output, (
                    f"{block}: not in the output of today: {line}\n{output}"
                )


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict[str, Any] = {"__name__": "__main__", "display": print}
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["result"].nodes


def test_what_does_not_run_says_why() -> None:
    for block in BLOCKS:
        if block.language in RUNNABLE and block.excuse:
            assert len(block.excuse) > 10, block


def commands() -> dict[str, set[str]]:
    """The options of every command, by the words that call it."""
    found: dict[str, set[str]] = {}

    def walk(name: str, command: Any) -> None:
        found[name] = {"--help", "-h"} | {
            word for p in command.params for word in (*p.opts, *p.secondary_opts) if word.startswith("-")
        }
        for word, child in getattr(command, "commands", {}).items():
            walk(f"{name} {word}", child)

    walk("aiene", typer.main.get_command(app))
    return found


def test_every_command_that_is_shown_has_the_options_that_are_shown() -> None:
    known = commands()
    for block in BLOCKS:
        joined = block.text.replace("\\\n", " ")
        for line in joined.splitlines():
            words = line.split("#")[0].removeprefix("$ ").split()
            if words[:1] != ["aiene"]:
                continue
            name = "aiene"
            for word in words[1:]:
                for choice in word.split("|"):  # aiene models list|show
                    name = f"{name} {choice}" if f"{name} {choice}" in known else name
            options = {word.split("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)}
            # `aiene review OUT` is `aiene review start OUT`, `leaderboard BOARD` is `leaderboard show BOARD`
            usual = [known.get(f"{name} {word}", set()) for word in ("start", "show")]
            missing = options - known[name].union(*usual)
            assert not missing, f"{block}: {name} has no {sorted(missing)}"


def messages() -> str:
    """The source with texts that go on in the next line put together."""
    files = (ROOT / "src").rglob("*.py")
    return "\n".join(re.sub(r'"\s*\n\s*f?"', "", file.read_text(encoding="utf-8")) for file in files)


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_source() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    known = messages()
    quoted = re.findall(r"\*\*`([^`]+)`\*\*", page)
    assert len(quoted) > 20
    assert not [text for text in quoted if text not in known]


@pytest.mark.slow
def test_the_site_builds_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    commands_page = (tmp_path / "site" / "commands" / "index.html").read_text(encoding="utf-8")
    assert "aiene retable" in commands_page
    python_page = (tmp_path / "site" / "python" / "index.html").read_text(encoding="utf-8")
    assert "your own contours in place of the segmenter" in python_page


def test_the_counting_rule_that_is_explained_is_the_included_models() -> None:
    card = aiene.find_bundle("default").card
    rule = f"{card.ene_threshold:g} and {card.pos_from:g}"
    assert (
        f"For the model that is included they are {rule};" in (ROOT / "docs/reading-results.md").read_text()
    )
    shown = f"probability is over {card.ene_threshold:g} and `pos` is {card.pos_from:g} or more"
    assert shown in " ".join((ROOT / "docs/quick-start.md").read_text().split())
