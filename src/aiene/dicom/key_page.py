"""One page for one node: its key slices with the outline, and its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from aiene.dicom.contours import outlines
from aiene.dicom.key_slices import Picture

LEVEL_HU: Final = 50.0
WIDTH_HU: Final = 350.0
"""Soft tissue of the neck."""

PANEL: Final = 480
GAP: Final = 12
_HEAD: Final = 84
_FOOT: Final = 30
PAGE: Final = (2 * PANEL + 3 * GAP, _HEAD + 2 * (PANEL + GAP) + _FOOT)
"""Width and height in pixels."""

NOTICE: Final = "Research software, not a medical device"

_NODE_COLOUR: Final = (255, 210, 0)
_OTHER_COLOUR: Final = (0, 190, 255)
_TEXT_COLOUR: Final = (235, 235, 235)
_WARNING_COLOUR: Final = (255, 120, 90)
_FINE: Final = 3  # outlines are drawn this much larger, so that they are smooth


@dataclass(frozen=True)
class Words:
    """What a page says.

    Parameters
    ----------
    title : name and ENE of the node.
    facts : the line below it.
    captions : of each picture.
    source : what made the result.
    """

    title: str
    facts: str
    captions: tuple[str, ...]
    source: str


def draw_page(pictures: Sequence[Picture], words: Words) -> npt.NDArray[np.uint8]:
    """The page.

    Parameters
    ----------
    pictures : four, of `PANEL` pixels.

    Returns
    -------
    uint8 (row, column, RGB).
    """
    page = Image.new("RGB", PAGE, (16, 16, 16))
    pen = ImageDraw.Draw(page)
    pen.text((GAP, 8), words.title, font=_font(30), fill=_NODE_COLOUR)
    pen.text((GAP, 50), words.facts, font=_font(18), fill=_TEXT_COLOUR)
    for place, (picture, caption) in enumerate(zip(pictures, words.captions, strict=True)):
        row, column = divmod(place, 2)
        corner = GAP + column * (PANEL + GAP), _HEAD + row * (PANEL + GAP)
        page.paste(_panel(picture, caption), corner)
    foot = PAGE[1] - _FOOT + 2
    pen.text((GAP, foot), words.source, font=_font(15), fill=_TEXT_COLOUR)
    pen.text((PAGE[0] - GAP, foot), NOTICE, font=_font(15), fill=_WARNING_COLOUR, anchor="ra")
    return np.asarray(page, dtype=np.uint8)


def grey(hu: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """HU in the window of soft tissue, 0 to 255."""
    scaled = (hu - (LEVEL_HU - WIDTH_HU / 2)) / WIDTH_HU
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def scale_bar_mm(side_mm: float) -> int:
    """A round length that takes up to a third of the side."""
    return max(mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm <= max(side_mm / 3, 1))


def _panel(picture: Picture, caption: str) -> Image.Image:
    panel = (
        Image.fromarray(grey(picture.hu))
        .convert("RGB")
        .resize((PANEL * _FINE,) * 2, Image.Resampling.BICUBIC)
    )
    pen = ImageDraw.Draw(panel)
    _outline(pen, picture.others, _OTHER_COLOUR, 1)
    _outline(pen, picture.mask, _NODE_COLOUR, 2)
    panel = panel.resize((PANEL, PANEL), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(panel)
    _letters(pen, picture.letters)
    _scale_bar(pen, picture.mm_per_pixel)
    _text(pen, (8, 6), caption, 15, "la")
    return panel


def _outline(
    pen: ImageDraw.ImageDraw, mask: npt.NDArray[np.bool_], colour: tuple[int, int, int], width: int
) -> None:
    for outline in outlines(mask):
        points = [((c + 0.5) * _FINE, (r + 0.5) * _FINE) for r, c in [*outline.tolist(), outline[0].tolist()]]
        pen.line(points, fill=colour, width=width * _FINE, joint="curve")


def _letters(pen: ImageDraw.ImageDraw, letters: tuple[str, str, str, str]) -> None:
    left, right, top, bottom = letters
    middle, edge = PANEL / 2, PANEL - 8
    for place, text, anchor in (
        ((8, middle), left, "lm"),
        ((edge, middle), right, "rm"),
        ((middle, 28), top, "ma"),
        ((middle, edge), bottom, "md"),
    ):
        _text(pen, place, text, 20, anchor)


def _scale_bar(pen: ImageDraw.ImageDraw, mm_per_pixel: float) -> None:
    length_mm = scale_bar_mm(PANEL * mm_per_pixel)
    length, y = length_mm / mm_per_pixel, PANEL - 14
    end = PANEL - 14
    for dark, width in (((0, 0, 0), 5), ((255, 255, 255), 2)):
        pen.line([(end - length, y), (end, y)], fill=dark, width=width)
        for x in (end - length, end):
            pen.line([(x, y - 6), (x, y + 6)], fill=dark, width=width)
    _text(pen, (end - length / 2, y - 8), f"{length_mm} mm", 14, "md")


def _text(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, anchor: str) -> None:
    pen.text(
        place,
        text,
        font=_font(size),
        fill=(255, 255, 255),
        anchor=anchor,
        stroke_width=2,
        stroke_fill=(0, 0, 0),
    )


def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)
