"""Which of a network's labels are lymph nodes, and which the primary tumour: by name, or as the user says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from aiene.errors import ModelError

NO_PRIMARY = "none"
"""Given as the primary's label: the network knows none."""

_NODES = {
    *("gtvn", "gtvnd", "gtvln", "gtvnode", "gtvnodes", "gtvnodal", "gtvlymphnode", "gtvlymphnodes"),
    *("node", "nodes", "nodal", "ln", "lns", "lymphnode", "lymphnodes", "lymphadenopathy", "lymphknoten"),
}
_PRIMARY = {
    *("gtvp", "gtvpt", "gtvt", "gtvprimary", "gtvtumor", "gtvtumour"),
    *("primary", "primarius", "tumor", "tumour", "primarytumor", "primarytumour"),
}
_NEITHER = {
    *("benign", "normal", "healthy", "negative", "reactive", "non", "no", "not", "bed"),
    *("level", "levels", "station", "stations", "ctv", "ptv", "itv", "elective", "oar"),
}
"""Words that make of a node, or tumour, something that is not to be counted: anatomy, margins, the benign."""


@dataclass(frozen=True)
class ChosenLabels:
    """What is taken from a network.

    Parameters
    ----------
    labels : value of the network's label for `GTVn` and, where it has one, `GTVp`.
    names : how the network calls them.
    left_out : its other labels, which never count.
    """

    labels: dict[str, int]
    names: dict[str, str]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        words = [f"nodes are its label {self.labels['GTVn']} ({self.names['GTVn']})"]
        if "GTVp" in self.labels:
            words.append(f"the primary tumour is its label {self.labels['GTVp']} ({self.names['GTVp']})")
        else:
            words.append("it has no label for the primary tumour, so none is looked for")
        if self.left_out:
            words.append(f"left out: {', '.join(self.left_out)}")
        return "; ".join(words)


def chosen_labels(
    source: Path, given: Mapping[str, int], *, nodes: str | None = None, primary: str | None = None
) -> ChosenLabels:
    """The labels of nodes and primary tumour among a network's.

    Parameters
    ----------
    source : the model, for messages.
    given : its labels by name, background included.
    nodes, primary : name or value of the label, as the user says; None: found by name. `none`: no primary.

    Raises
    ------
    ModelError : no name says which label is the nodes, or several do; no such label; one label for both.
    """
    labels = {name: value for name, value in given.items() if value != 0}
    of_nodes = None if nodes is None else _asked(source, labels, nodes, "--nodes-label")
    of_primary = None
    if primary is not None and primary != NO_PRIMARY:
        of_primary = _asked(source, labels, primary, "--primary-label")
    if of_nodes is None:
        rest = {name: value for name, value in labels.items() if name != of_primary}
        of_nodes = _named(source, rest, _says_nodes, "lymph nodes", "--nodes-label")
    if of_nodes is None:
        problem = f"no label name refers to lymph nodes; it has {_listed(labels)}"
        raise ModelError(source, problem, "name it with --nodes-label NAME or NUMBER")
    if primary is None:
        rest = {name: value for name, value in labels.items() if name != of_nodes}
        of_primary = _named(source, rest, _says_primary, "the primary tumour", "--primary-label")
    if of_nodes == of_primary:
        problem = f"its label {of_nodes} cannot be nodes and primary tumour at once"
        raise ModelError(source, problem, "name two labels, or --primary-label none")
    names = {"GTVn": of_nodes} | ({"GTVp": of_primary} if of_primary else {})
    return ChosenLabels(
        labels={ours: labels[name] for ours, name in names.items()},
        names=names,
        left_out=tuple(name for name in labels if name not in names.values()),
    )


def _listed(labels: Mapping[str, int]) -> str:
    by_value = sorted(labels.items(), key=lambda item: item[1])
    return ", ".join(f"{value} ({name})" for name, value in by_value) or "none but the background"


def _asked(source: Path, labels: Mapping[str, int], word: str, flag: str) -> str:
    """The label that the user names, by name or by value."""
    by_value = {str(value): name for name, value in labels.items()}
    if word not in labels and word not in by_value:
        problem = f"it has no label {word or '(empty)'}; it has {_listed(labels)}"
        raise ModelError(source, problem, f"name one of these as {flag}")
    return word if word in labels else by_value[word]


def _named(
    source: Path, labels: Mapping[str, int], says: Callable[[str], bool], what: str, flag: str
) -> str | None:
    """The one label whose name says what it is; None where there is none."""
    found = {name: value for name, value in labels.items() if says(name)}
    if len(found) > 1:
        problem = f"several of its labels could be {what}: {_listed(found)}"
        raise ModelError(source, problem, f"name it with {flag} NAME or NUMBER")
    return next(iter(found), None)


def _words(name: str) -> set[str]:
    """The words of a name in lower case, without numbers: `GTVn_1`, `LymphNode`, `gtv-N`."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name).lower()
    words = re.findall(r"[a-z]+", apart)
    pairs = {first + second for first, second in pairwise(words)}
    return {*words, *pairs}


def _says_nodes(name: str) -> bool:
    words = _words(name)
    return bool(words & _NODES) and not words & _NEITHER and "primary" not in words


def _says_primary(name: str) -> bool:
    words = _words(name)
    return bool(words & _PRIMARY) and not words & (_NEITHER | _NODES)
