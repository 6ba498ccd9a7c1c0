"""The outlines of a mask on a plane, as closed polygons.

An outline is a closed polygon that gives the same mask again when it is filled. It runs half-way between the
centres of pixels inside and outside (marching squares at 0.5 of a mask of 0 and 1), so it stays over a third
of a pixel from every centre: whoever asks which pixel centres lie inside gets the mask back, whatever the
rule for points on a line. Pixels that touch at a corner only belong to two islands.

A polygon knows no holes. A hole is joined to the outline around it by a cut of no width (keyhole), which is
walked there and back, so both common filling rules (even-odd, non-zero) leave the hole out. Cuts run along
the edges between pixel columns, half a pixel from every centre.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Outline = npt.NDArray[np.float64]
"""(n, 2) pixel indices (row, column), fractions allowed; closed, the first point not repeated at the end."""

_Point = tuple[int, int]  # row and column in half pixels, so that every comparison is exact
_Ring = list[_Point]
_HALF: Final = 0.5


def outlines(mask: npt.NDArray[Any]) -> list[Outline]:
    """The islands of a mask as one closed outline each.

    Parameters
    ----------
    mask : (row, column), not 0 inside; pixels at its border are closed half a pixel beyond it.

    Returns
    -------
    One outline for each island of pixels that share an edge, holes joined by keyholes; every point is a
    corner or an end of a cut. Its area is that of the pixels, less half a pixel, plus half a pixel for each
    hole.
    """
    inside = np.pad(np.asarray(mask) != 0, 1)
    if not inside.any():
        return []
    rings = _rings(inside)
    outer = [ring for ring in rings if _twice_area(ring) > 0]
    holes = [ring for ring in rings if _twice_area(ring) < 0]
    home = {point: ring for ring in outer for point in ring}
    lowest_first = sorted(((_lowest_right(hole), hole) for hole in holes), reverse=True)
    for start, hole in lowest_first:  # a cut runs downwards, so what it meets has its own cut already
        _join(home, start, hole, inside)
    return [(np.array(_corners(ring), dtype=np.float64) * _HALF) - 1 for ring in outer]


def _rings(inside: Mask) -> list[_Ring]:
    """Every boundary of the mask, the inside on one and the same hand, in steps of half a pixel at most."""
    from skimage.measure import find_contours

    found = find_contours(inside.astype(np.float64), _HALF, fully_connected="low", positive_orientation="low")
    return [_halved([(round(2 * r), round(2 * c)) for r, c in ring[:-1].tolist()]) for ring in found]


def _halved(ring: _Ring) -> _Ring:
    """The ring with a point in the middle of each edge that runs a whole pixel."""
    points: _Ring = []
    for here, there in zip(ring, ring[1:] + ring[:1], strict=True):
        points.append(here)
        row, column = here[0] + there[0], here[1] + there[1]
        if abs(there[0] - here[0]) + abs(there[1] - here[1]) == 2 and 0 in (
            there[0] - here[0],
            there[1] - here[1],
        ):
            points.append((row // 2, column // 2))
    return points


def _twice_area(ring: _Ring) -> int:
    """Over 0 for an outer boundary, under 0 for that of a hole."""
    rows, columns = np.array(ring).T
    return int(np.sum(columns * np.roll(rows, -1) - np.roll(columns, -1) * rows))


def _lowest_right(hole: _Ring) -> _Point:
    """The point right of the last pixel of a hole's last row: the pixels below it are inside the mask.

    A hole holds every pixel outside the mask that touches it, corners included, so none lies a row below.
    """
    last_row = max(row for row, _ in hole) - 1
    return max(point for point in hole if point[0] == last_row)


def _join(home: dict[_Point, _Ring], start: _Point, hole: _Ring, inside: Mask) -> None:
    """Cut from `start` on the hole straight down to the first boundary, and take the hole into that one."""
    row, column = start[0] // 2 + 1, start[1] // 2
    while inside[row, column] and inside[row, column + 1]:
        row += 1
    both_end = not (inside[row, column] or inside[row, column + 1])
    end = (2 * row - int(both_end), start[1])
    around = home[end]
    at, first = around.index(end), hole.index(start)
    around[at:at] = [end, *hole[first:], *hole[:first], start]
    home.update(dict.fromkeys(hole, around))


def _corners(ring: _Ring) -> _Ring:
    """The ring without the points on a straight way from the one before to the one after."""
    kept: _Ring = []
    for point in ring:
        while len(kept) > 1 and _straight(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    while len(kept) > 3 and _straight(kept[-2], kept[-1], kept[0]):
        kept.pop()
    while len(kept) > 3 and _straight(kept[-1], kept[0], kept[1]):
        kept.pop(0)
    return kept


def _straight(before: _Point, here: _Point, after: _Point) -> bool:
    there = here[0] - before[0], here[1] - before[1]
    on = after[0] - here[0], after[1] - here[1]
    return there[0] * on[1] == there[1] * on[0] and there[0] * on[0] + there[1] * on[1] >= 0
