"""Cut-offs and groups from the data, and what they are worth on patients that did not choose them."""

from aiene.risk.analyse.derive.chapter import derive_chapter
from aiene.risk.analyse.derive.search import Derived, Trial, search

__all__ = ["Derived", "Trial", "derive_chapter", "search"]
