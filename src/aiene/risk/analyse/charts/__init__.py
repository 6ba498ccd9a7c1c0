"""The figures of an analysis: each a pure function from plain numbers to a drawing."""

from aiene.report.render import FigurePicture as Picture
from aiene.report.render import draw_figure as render

__all__ = ["Picture", "render"]
