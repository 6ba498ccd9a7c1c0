"""What a run says is a template with arguments, never text that was put together: it could hold a name.

A pseudonymised run shows numbers and our own words, a stand-in for each name, and nothing else. That holds as
long as every sentence on its way is made by `errors.said` from a literal template, and whatever a library,
the system or a header says is an argument.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
ROOTS = ("aiene.cohort", "aiene.export.run", "aiene.finished_runs")
"""What a pseudonymised run, its export and its pages go through, with all that they import."""

OUR_OWN_WORDS = {
    "aiene.export.rtstruct": "names of structures, in a DICOM object",
    "aiene.export.secondary_capture": "words on a picture, in a DICOM object",
    "aiene.export.seg": "names of segments, in a DICOM object",
    "aiene.export.sr": "words of a report, in a DICOM object",
    "aiene.provenance": "names of devices",
    "aiene.report": "pages",
}
"""Modules whose texts are no messages, but for their errors."""

INTERNAL = {"ValueError", "TypeError", "RuntimeError", "KeyError", "NotImplementedError", "AttributeError"}
"""Errors that are told by their class alone (`UnforeseenError`)."""

NAMES = {"case_id", "source", "stem", "file", "path", "folder", "patient", "series_uid"}
GIVEN = {"problem", "remedy"}
"""Parts of another error, or parameters that are handed on to one."""


@cache
def _trees() -> dict[str, ast.Module]:
    """The source by module."""
    files = {file: file.relative_to(SOURCE).with_suffix("").parts for file in SOURCE.rglob("*.py")}
    return {
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts): ast.parse(
            file.read_text(encoding="utf-8")
        )
        for file, parts in files.items()
    }


@cache
def _definitions() -> dict[str, list[ast.AST]]:
    """The classes, functions and imports of each module."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.Import, ast.ImportFrom)
    return {name: [n for n in ast.walk(tree) if isinstance(n, kinds)] for name, tree in _trees().items()}


def _imported(module: str) -> Iterator[str]:
    for node in _definitions()[module]:
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
        if module in _trees() and module not in seen:
            seen.add(module)
            waiting += _imported(module)
    return sorted(seen - {"aiene.errors"})


@cache
def _errors_of_ours() -> set[str]:
    """Names of `AieneError` and what derives from it."""
    bases: dict[str, set[str]] = {}
    for node in chain.from_iterable(_definitions().values()):
        if isinstance(node, ast.ClassDef):
            bases[node.name] = {ast.unparse(base) for base in node.bases}
    found = {"AieneError"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return found


def _sayings(nodes: Iterable[ast.AST]) -> set[str]:
    """Names of functions that give a `Said` wherever they are defined."""
    gives: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            gives.setdefault(node.name, set()).add("" if node.returns is None else ast.unparse(node.returns))
    return {name for name, types in gives.items() if types == {"Said"}}


@cache
def _sayings_of_ours() -> set[str]:
    return {"said"} | _sayings(chain.from_iterable(_definitions().values()))


def _prose(text: str) -> bool:
    return text.count(" ") > 1 and re.search(r"[a-z]{2}", text) is not None


class _Reader(ast.NodeVisitor):
    """Everything in a module that could put a name into a sentence unmarked."""

    def __init__(self, tree: ast.Module, *, words_are_messages: bool) -> None:
        self.found: list[str] = []
        self._texts = words_are_messages
        self._sayings = _sayings_of_ours() | _sayings(ast.walk(tree))
        self._caught: list[str] = []
        self._functions: list[ast.FunctionDef] = []
        self.visit(tree)

    def visit(self, node: ast.AST) -> None:
        """Look at a node, then at those in it."""
        match node:
            case ast.FunctionDef(name="__repr__") | ast.keyword(arg="what"):  # of `errors.attempt`, for a log
                return
            case ast.Call() if self._is_apart(node):
                return
            case ast.FunctionDef():
                self._functions.append(node)
                self.generic_visit(node)
                self._functions.pop()
            case ast.ExceptHandler(name=name):
                self._caught.append(name or "")
                self.generic_visit(node)
                self._caught.pop()
            case _:
                self._look_at(node)
                self.generic_visit(node)

    def _look_at(self, node: ast.AST) -> None:
        match node:
            case ast.Call():
                self._look_at_call(node)
            case ast.JoinedStr(values=values) if any(isinstance(v, ast.FormattedValue) for v in values):
                if self._texts and _prose(
                    "".join(str(v.value) for v in values if isinstance(v, ast.Constant))
                ):
                    self._note(node, "make it said(template, ...)")
            case ast.BinOp(op=ast.Add() | ast.Mod(), left=left, right=right):
                if self._texts and any(
                    isinstance(s, ast.Constant) and _prose(str(s.value)) for s in (left, right)
                ):
                    self._note(node, "make it said(template, ...)")
            case ast.Attribute(attr="strerror" | "args" | "msg" | "filename", value=value):
                if self._is_caught(value):
                    self._note(node, "make it os_reason(...) or library_reason(...)")

    def _note(self, node: ast.expr, why: str) -> None:
        self.found.append(f"line {node.lineno}: {why}: {ast.unparse(node)[:70]}")

    def _is_caught(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id in self._caught

    def _is_apart(self, node: ast.Call) -> bool:
        """A call whose words go nowhere, or mark themselves."""
        called = _dotted(node.func)
        return called in {*INTERNAL, "os_reason", "library_reason"} or called.startswith("log.")

    def _look_at_call(self, node: ast.Call) -> None:
        called = _dotted(node.func).split(".")[-1]
        if called in ("str", "repr") and node.args and self._is_caught(node.args[0]):
            self._note(node, "make it library_reason(...)")
        if self._texts and called == "format" and isinstance(node.func, ast.Attribute):
            self._note(node, "make it said(template, ...)")
        if called == "said" and not self._is_ours(node.args[0]):
            self._note(node, "a template is a literal or a constant")
        if called == "ours" and (_words_in(node) & NAMES or self._is_caught(node.args[0])):
            self._note(node, "this is not ours")
        if called in _errors_of_ours() - {
            "MissingExtraError",
            "UnforeseenError",
            "ObjectGoneError",
        }:  # fixed sentences
            given = [*node.args, *(word.value for word in node.keywords)]
            for argument in given[1:] if len(given) == 3 else given:
                if not self._is_ours(argument):
                    self._note(argument, "a literal or said(...)")

    def _is_ours(self, node: ast.expr) -> bool:
        """Whether an expression can be nothing but a literal, a constant or something said."""
        match node:
            case ast.Constant(value=str()):
                return True
            case ast.IfExp(body=one, orelse=other) | ast.BinOp(left=one, right=other):
                return self._is_ours(one) and self._is_ours(other)
            case ast.Starred(value=inner) | ast.Subscript(value=inner) | ast.ListComp(elt=inner):
                return self._is_ours(inner)
            case ast.Call(func=ast.Attribute(value=inner, attr="get")):
                return self._is_ours(inner)
            case ast.Call(func=func):
                return _dotted(func).split(".")[-1] in self._sayings
            case ast.BoolOp(values=several) | ast.List(elts=several) | ast.Tuple(elts=several):
                return all(map(self._is_ours, several))
            case ast.Attribute(attr=name):
                return name.isupper() or name in {*GIVEN, "problems", "told"}
            case ast.Name(id=name):
                return name.isupper() or name in GIVEN - _assigned(self._functions) or self._is_said(name)
        return False

    def _is_said(self, name: str) -> bool:
        """Whether a name of the function is annotated as said, or given nothing but what is ours."""
        given: list[ast.expr | None] = []
        for node in ast.walk(self._functions[-1]) if self._functions else ():
            match node:
                case (
                    ast.arg(arg=word, annotation=kind)
                    | ast.AnnAssign(target=ast.Name(id=word), annotation=kind)
                ):
                    if word == name:
                        return kind is not None and re.search(r"\bstr\b", ast.unparse(kind)) is None
                case ast.Assign(targets=[target], value=value) | ast.For(target=target, iter=value):
                    given += _given_to(name, target, value)
        return bool(given) and all(value is not None and self._is_ours(value) for value in given)


def _dotted(node: ast.expr) -> str:
    """Its source; the usual names without `ast.unparse`, which takes ten times as long."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{_dotted(value)}.{name}"
    return ast.unparse(node)


def _assigned(functions: list[ast.FunctionDef]) -> set[str]:
    """Names that the innermost function gives a value to."""
    nodes = ast.walk(functions[-1]) if functions else ()
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _words_in(node: ast.AST) -> set[str]:
    inner = list(ast.walk(node))
    return {n.id for n in inner if isinstance(n, ast.Name)} | {
        n.attr for n in inner if isinstance(n, ast.Attribute)
    }


def _given_to(name: str, target: ast.expr, value: ast.expr) -> list[ast.expr | None]:
    """What a statement gives to a name; None where that is not seen at a glance."""
    if name not in _words_in(target):
        return []
    match target, value:
        case ast.Name(), _:
            return [value]
        case ast.Tuple(), ast.IfExp(body=one, orelse=other):
            return _given_to(name, target, one) + _given_to(name, target, other)
        case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(values):
            if not any(isinstance(v, ast.Tuple) for v in values):
                pairs = zip(targets, values, strict=True)
                return [given for t, v in pairs for given in _given_to(name, t, v)]
    rows = value.elts if isinstance(value, ast.Tuple | ast.List) else []
    return [given for row in rows for given in _given_to(name, target, row)] or [
        value if isinstance(value, ast.Call | ast.Name) else None
    ]


def test_no_sentence_is_put_together_outside_said() -> None:
    modules = _reached()
    assert {*ROOTS} < {*modules}
    faults = []
    for module in modules:
        words_are_messages = not any(f"{module}.".startswith(f"{own}.") for own in OUR_OWN_WORDS)
        found = _Reader(_trees()[module], words_are_messages=words_are_messages).found
        faults += [f"{module} {fault}" for fault in found]
    assert not faults, "\n".join(["", *faults])


BAD = (
    'raise InputError(path, f"its field {name} is bad", "mend it")',
    'raise InputError(path, header["comment"], "mend it")',
    'raise InputError(path, "it is bad", str(error))',
    "raise UsageError(str(path))",
    'raise CaseError(problem="it is bad: " + words, remedy="mend it")',
    'warnings.append(f"the file {path.name} was left out")',
    'notes = ["{} is not here".format(name)]',
    'notes = ["%s is not here" % name]',
    'told = said(f"{path.name} is bad")',
    'told = said("{} is bad", ours(path.name))',
    'told = said("{} is bad", ours(case_id))',
    'problem = words\nraise CaseError(problem, "mend it")',
    "problem, remedy = found()\nraise CaseError(problem, remedy)",
    'try:\n    pass\nexcept OSError as error:\n    raise CaseError(said("{}", error.strerror), "a")',
    "try:\n    pass\nexcept OSError as error:\n    notes.append(str(error))",
)
GOOD = (
    'raise InputError(path, "it is bad", "mend it")',
    'raise InputError(path, said("it is {}", words), _REMEDY)',
    'raise ValueError(f"an array of shape {shape} on a grid of {size}")',
    'problem = "bad" if here else said("{} is bad", file_name(path))\nraise CaseError(problem, "mend it")',
    'what, why = ("a", "b") if here else ("c", said("d"))\nraise CaseError(what, why)',
    'try:\n    pass\nexcept OSError as error:\n    raise CaseError(said("{}", os_reason(error)), "a")',
    'name = f"{stem}.nii.gz"',
)


@pytest.mark.parametrize(("code", "is_bad"), [*((c, True) for c in BAD), *((c, False) for c in GOOD)])
def test_the_rule_tells_sentences_from_text_that_was_put_together(code: str, is_bad: bool) -> None:
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    found = _Reader(ast.parse(f"def work(words, name):\n{lines}\n"), words_are_messages=True).found
    assert bool(found) == is_bad, found
