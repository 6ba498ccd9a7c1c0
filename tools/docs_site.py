"""Pages of the documentation site that the source makes: hooks of mkdocs and an extension of griffe.

`commands.md` is the help of every command; `changelog.md` and `contributing.md` are the files of the root.
`mkdocs.yml` names this file.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import griffe
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from aiene.cli.app import app

_ROOT: Final = Path(__file__).resolve().parent.parent
_OF_THE_ROOT: Final = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have no file in `docs`."""
    pages = {page: (_ROOT / name).read_text(encoding="utf-8") for name, page in _OF_THE_ROOT.items()}
    for page, content in {**pages, "commands.md": commands_page()}.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links between the root and `docs`, as they are on disk, to the places that the site has for them."""
    for name, page in _OF_THE_ROOT.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(name)}", f"]({page}", markdown)
    return markdown.replace("](docs/", "](")


def commands_page() -> str:
    """The reference of the command line, from the commands themselves."""
    lines = ["# Commands", "", "Each command shows this with `--help`.", ""]
    for name, command in _leaves("aiene", typer.main.get_command(app)):
        lines += [f"## `{name}`", "", inspect.cleandoc(command.help or ""), ""]
        rows = [_row(p) for p in command.params if not getattr(p, "hidden", False)]
        if rows:
            lines += ["| | default | what |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command that does something itself, by the words that call it."""
    below = getattr(command, "commands", None)
    if below is None or getattr(command, "invoke_without_command", False):
        yield name, command
    for word, child in (below or {}).items():
        yield from _leaves(f"{name} {word}", child)


def _row(parameter: Any) -> str:
    named = getattr(parameter, "metavar", None) or (parameter.name or "").upper()
    is_option = parameter.param_type_name == "option"
    shown = ", ".join((*parameter.opts, *parameter.secondary_opts)) if is_option else named
    needed = "needed" if parameter.required else ""
    default = "" if callable(parameter.default) else parameter.default
    is_plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    told = needed or (f"`{default}`" if is_plain and default != "" else "")
    text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    return f"| `{shown}` | {told} | {text} |"


class ShortDocstrings(griffe.Extension):
    """Our docstrings put `name : what it is` on one line; griffe would take what stands there for a type."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Bring an object's docstring into the form that griffe reads."""
        if obj.docstring is not None:
            obj.docstring.value = numpydoc(inspect.cleandoc(obj.docstring.value))


def numpydoc(text: str) -> str:
    """A docstring of ours in numpydoc's form: names and errors on lines of their own."""
    result: list[str] = []
    section = ""
    lines = text.splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if after and set(after) == {"-"}:
            section = line
            result.append(line)
        elif line and set(line) == {"-"}:
            result += [line, ":"] if section == "Returns" else [line]
        elif section == "Returns":
            result.append(f"    {line}" if line else "")
        elif section in ("Parameters", "Raises") and (found := re.fullmatch(r"([\w, ]+) : (.*)", line)):
            result += [found[1], f"    {found[2]}"]
        else:
            result.append(line)
    return "\n".join(result)
