"""What a run says is a template with arguments, never text that was put together: it could hold a name.

A pseudonymised run shows numbers and our own words, a stand-in for each name, and nothing else. That holds as
long as every sentence on its way is made by `errors.said` from a literal template, and whatever a library,
the system or a header says is an argument.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
ROOTS = ("aiene.cohort", "aiene.export.run", "aiene.export.run_reader", "aiene.viewer.images")
"""What a pseudonymised run, its export and its pages go through, with all that they import."""

OUR_OWN_WORDS = {
    "aiene.export.rtstruct": "names of structures, in a DICOM object",
    "aiene.export.secondary_capture": "words on a picture, in a DICOM object",
    "aiene.export.seg": "names of segments, in a DICOM object",
    "aiene.export.sr": "words of a report, in a DICOM object",
    "aiene.provenance": "names of devices",
    "aiene.report": "pages",
    "aiene.ingest.dicom.header": "words that are compared, not shown",
}
"""Modules whose texts are no messages."""

INTERNAL = {"ValueError", "TypeError", "RuntimeError", "KeyError", "NotImplementedError"}
"""Errors of our own making: told by their class alone (`UnforeseenError`)."""

NAMES = {"case_id", "source", "stem", "file", "path", "folder", "patient", "series_uid", "name"}


@cache
def _tree(module: str) -> ast.Module | None:
    for file in (SOURCE / f"{module.replace('.', '/')}.py", SOURCE / module.replace(".", "/") / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _reached() -> list[str]:
    seen: set[str] = set()
    waiting = list(ROOTS)
    while waiting:
        module = waiting.pop()
        tree = None if module in seen or not module.startswith("aiene") else _tree(module)
        if tree is not None:
            seen.add(module)
            waiting += _imported(tree)
    return sorted(m for m in seen if not any(m == own or m.startswith(f"{own}.") for own in OUR_OWN_WORDS))


def _errors_of_ours() -> set[str]:
    """Names of `AieneError` and what derives from it."""
    bases: dict[str, set[str]] = {}
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {ast.unparse(base) for base in node.bases}
    found = {"AieneError"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return found


def _sayings() -> set[str]:
    """Names of functions and properties that give a `Said`, and nothing else where they are defined."""
    gives: dict[str, set[str]] = {}
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                gives.setdefault(node.name, set()).add("" if node.returns is None else ast.unparse(node.returns))
    return {name for name, types in gives.items() if types == {"Said"}} | {"said"}


MODULES = _reached()
ERRORS = _errors_of_ours()
SAYINGS = _sayings()


def _prose(text: str) -> bool:
    return text.count(" ") > 1


class _Reader(ast.NodeVisitor):
    """Everything in a module that could put a name into a sentence unmarked."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._caught: list[str] = []
        self._functions: list[ast.FunctionDef] = []
        self._allowed: set[int] = set()

    def _note(self, node: ast.expr, why: str) -> None:
        self.found.append(f"line {node.lineno}: {why}: {ast.unparse(node)[:70]}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._functions.append(node)
        self.generic_visit(node)
        self._functions.pop()

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._caught.append(node.name or "")
        self.generic_visit(node)
        self._caught.pop()

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        words = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        if _prose(words) and any(isinstance(part, ast.FormattedValue) for part in node.values):
            self._note(node, "make it said(template, ...)")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        for side in (node.left, node.right):
            text = side.value if isinstance(side, ast.Constant) and isinstance(side.value, str) else ""
            if isinstance(node.op, ast.Add | ast.Mod) and _prose(text):
                self._note(node, "make it said(template, ...)")
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in ("strerror", "args", "msg", "filename") and self._is_caught(node.value):
            self._note(node, "make it os_reason(...) or library_reason(...)")
        self.generic_visit(node)

    def _is_caught(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id in self._caught

    def visit_Call(self, node: ast.Call) -> None:
        called = ast.unparse(node.func).split(".")[-1]
        if called in INTERNAL or ast.unparse(node.func).startswith("log."):
            return
        if called in ("os_reason", "library_reason"):
            return
        if called in ("str", "repr", "format") and node.args and self._is_caught(node.args[0]):
            self._note(node, "make it library_reason(...)")
        if called == "format" and isinstance(node.func, ast.Attribute):
            self._note(node, "make it said(template, ...)")
        if called == "said" and not self._is_ours(node.args[0]):
            self._note(node, "a template is a literal or a constant")
        if called == "ours":
            for inner in ast.walk(node.args[0]):
                if isinstance(inner, ast.Attribute | ast.Name):
                    word = inner.attr if isinstance(inner, ast.Attribute) else inner.id
                    if word in NAMES - {"name"} or self._is_caught(inner):
                        self._note(node, "this is not ours")
        if called in ERRORS and called not in ("MissingExtraError", "UnforeseenError"):
            given = [*node.args, *(word.value for word in node.keywords)]
            for argument in given[1:] if len(given) == 3 else given:
                if not self._is_ours(argument):
                    self._note(argument, "a literal or said(...)")
        self.generic_visit(node)

    def _is_ours(self, node: ast.expr) -> bool:
        """Whether an expression can be nothing but a literal, a constant or something said."""
        match node:
            case ast.Constant(value=str()):
                return True
            case ast.IfExp(body=one, orelse=other):
                return self._is_ours(one) and self._is_ours(other)
            case ast.Starred(value=value) | ast.Subscript(value=value):
                return self._is_ours(value)
            case ast.Call(func=func):
                return ast.unparse(func).split(".")[-1] in SAYINGS
            case ast.BoolOp(values=values):
                return all(map(self._is_ours, values))
            case ast.BinOp(left=one, right=other):
                return self._is_ours(one) and self._is_ours(other)
            case ast.List(elts=values) | ast.Tuple(elts=values):
                return all(map(self._is_ours, values))
            case ast.Attribute(attr=attr):
                return attr.isupper() or attr in ("problem", "remedy", "problems", "told") or attr in SAYINGS
            case ast.Name(id=name):
                return name.lstrip("_").isupper() or self._local_is_ours(name)
        return False

    def _local_is_ours(self, name: str) -> bool:
        """Whether all that a function gives to a name is ours."""
        given: list[ast.expr | None] = []
        for function in self._functions[-1:]:
            for argument in (*function.args.args, *function.args.kwonlyargs):
                if argument.arg == name:
                    return argument.annotation is not None and ast.unparse(argument.annotation) == "Said"
            for node in ast.walk(function):
                given += _given_to(name, node)
        return bool(given) and all(value is not None and self._is_ours(value) for value in given)


def _given_to(name: str, node: ast.AST) -> list[ast.expr | None]:
    """What a statement gives to a name; None where that is not seen at a glance."""
    match node:
        case ast.Assign(targets=targets, value=value):
            pairs = [(target, value) for target in targets]
        case ast.AnnAssign(target=target, value=value) | ast.AugAssign(target=target, value=value):
            pairs = [(target, value)] if value is not None else []
        case ast.For(target=target, iter=several) | ast.comprehension(target=target, iter=several):
            rows = several.elts if isinstance(several, ast.Tuple | ast.List) else None
            if rows is None:
                return [None] if name in _names_in(target) else []
            pairs = [(target, row) for row in rows]
        case ast.Call(func=ast.Attribute(value=ast.Name(id=of), attr="append"), args=[value]) if of == name:
            return [value]
        case _:
            return []
    found: list[ast.expr | None] = []
    for target, value in pairs:
        if isinstance(target, ast.Name) and target.id == name:
            found.append(value)
        elif name in _names_in(target):
            values = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            for one in values:
                if isinstance(target, ast.Tuple) and isinstance(one, ast.Tuple):
                    found += [v for t, v in zip(target.elts, one.elts, strict=True) if name in _names_in(t)]
                else:
                    found.append(None)
    return found


def _names_in(target: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("module", MODULES)
def test_no_sentence_is_put_together_outside_said(module: str) -> None:
    tree = _tree(module)
    assert tree is not None
    reader = _Reader()
    reader.visit(tree)
    assert not reader.found, "\n".join(["", *reader.found])
