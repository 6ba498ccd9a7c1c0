"""The modules of a package as their source has them: size, imports at the top, imports within functions.

Read by `ast`, so nothing is imported or run. What is imported for annotations alone (`if TYPE_CHECKING`) is
no dependency of a running program and is left out. An import of `a.b.c` counts as one of that module, not of
the packages above it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

Graph = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Module:
    """One source file.

    Parameters
    ----------
    name : dotted, the package itself for an `__init__.py`.
    lines, code_lines : all, and those that are no docstring, comment or blank.
    top, hidden : own modules that are imported when this one is loaded, and only when a function runs.
    foreign : the first name of each other package that is imported when this one is loaded.
    broad_handlers : lines of handlers that take any exception and do not raise it again.
    """

    name: str
    path: Path
    lines: int
    code_lines: int
    top: frozenset[str]
    hidden: frozenset[str]
    foreign: frozenset[str]
    broad_handlers: tuple[int, ...]

    @property
    def imports(self) -> frozenset[str]:
        """Own modules that are imported anywhere in it."""
        return self.top | self.hidden


def read_package(folder: Path) -> dict[str, Module]:
    """Every module of the package in a folder, by its dotted name."""
    paths = {_dotted(path, folder.parent): path for path in sorted(folder.rglob("*.py"))}
    return {name: _read(name, path, frozenset(paths)) for name, path in paths.items()}


def a_cycle(graph: Graph) -> list[str]:
    """Modules that import each other in a circle, the first again at the end; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def longest_chain(graph: Graph) -> list[str]:
    """The longest chain of imports, from the importer down, in a graph without cycles."""
    chain: dict[str, list[str]] = {}
    for name in TopologicalSorter(graph).static_order():
        chain[name] = [name, *max((chain[below] for below in graph[name]), key=len, default=[])]
    return max(chain.values(), key=len)


def loading_graph(modules: Mapping[str, Module]) -> dict[str, frozenset[str]]:
    """What must be loaded before each module: its imports at the top, and the packages that hold these.

    `import a.b.c` runs `a` and `a.b` first. A package that holds the importer itself is being loaded already,
    and is left out.
    """
    return {
        name: frozenset(
            loaded
            for target in module.top
            for loaded in _with_packages(target)
            if loaded in modules and not f"{name}.".startswith(f"{loaded}.")
        )
        for name, module in modules.items()
    }


def reaches(graph: Graph, start: str) -> frozenset[str]:
    """A module and all that is loaded with it."""
    seen, todo = {start}, [start]
    while todo:
        fresh = graph[todo.pop()] - seen
        seen |= fresh
        todo += fresh
    return frozenset(seen)


def imports_of(tree: ast.AST, modules: frozenset[str]) -> Iterator[tuple[str, bool]]:
    """What a file imports, as dotted names, and whether within a function.

    `from a import b` is an import of `a.b` where that is one of the modules, else of `a`.
    """
    for node, hidden in _statements(tree, hidden=False):
        if isinstance(node, ast.Import):
            yield from ((alias.name, hidden) for alias in node.names)
        elif node.level:
            raise ValueError(f"line {node.lineno}: relative imports are not used here")
        else:
            within = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from ((name if name in modules else str(node.module), hidden) for name in within)


def _statements(node: ast.AST, *, hidden: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, hidden
    elif not _for_types_only(node):
        hidden = hidden or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from _statements(child, hidden=hidden)


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _with_packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _dotted(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _read(name: str, path: Path, own: frozenset[str]) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    found = set(imports_of(tree, own))
    top = frozenset(target for target, hidden in found if not hidden)
    return Module(
        name=name,
        path=path,
        lines=len(text.splitlines()),
        code_lines=_code_lines(text, tree),
        top=(top & own) - {name},
        hidden=(frozenset(target for target, hidden in found if hidden) & own) - {name},
        foreign=frozenset(target.split(".")[0] for target in top - own),
        broad_handlers=tuple(_broad_handlers(tree)),
    )


def _code_lines(text: str, tree: ast.Module) -> int:
    documented: set[int] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
            and ast.get_docstring(node) is not None
        ):
            first = node.body[0]
            documented.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in documented
        for number, line in enumerate(text.splitlines(), 1)
    )


def _broad_handlers(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds)
        again = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
        if broad and not again:
            yield node.lineno
