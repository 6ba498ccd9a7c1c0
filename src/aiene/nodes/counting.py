"""Which found nodes count, and which of them as nodes with extension: one rule, told by the bundle's card."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CountingRule:
    """What the AI-ENE node number counts.

    Parameters
    ----------
    ene_threshold : a node has extension where its probability is over this.
    pos_from : the classifier must give a found node at least so much `pos` (0 to 1) for it to count; 0: every
        found node counts, as published.
    """

    ene_threshold: float
    pos_from: float = 0.0

    def counts(self, pos: float | None) -> bool:
        """Whether a found node counts as one at all; one that nobody judged does."""
        return pos is None or pos >= self.pos_from

    def is_ene(self, pos: float | None, ene: float | None) -> bool:
        """Whether a node counts as one with extension; both compared in float64."""
        return ene is not None and ene > self.ene_threshold and self.counts(pos)

    @property
    def sentence(self) -> str:
        """The rule in words, for tables and reports."""
        least = f" and `pos` is {self.pos_from:g} or more" if self.pos_from else ""
        return f"a node counts as AI-ENE where its ENE probability is over {self.ene_threshold:g}{least}"
