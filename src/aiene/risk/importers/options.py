"""What a user may say about a table that the table does not say itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["diagnosis", "rt_start", "rt_end"]


@dataclass(frozen=True)
class ImportOptions:
    """Choices of an import.

    Parameters
    ----------
    possible_is_event : RADCURE's `Possible` failures count as events.
    origin : when the clock starts, where the collection leaves a choice or does not say; None is its own.
    edition : of T and N, where the collection does not say (HECKTOR 2025): 7 or 8.
    hpv_one_is : what HPV 1 means, where the dictionary does not say (HECKTOR 2025).
    sheet : of a workbook, where not the usual one.
    """

    possible_is_event: bool = False
    origin: Origin | None = None
    edition: Literal["7", "8"] | None = None
    hpv_one_is: Literal["positive", "negative"] | None = None
    sheet: str | None = None
