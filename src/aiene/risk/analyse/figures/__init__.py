"""The figures of an analysis: each a pure function from plain numbers to a drawing."""

from aiene.risk.analyse.figures.render import Picture, render

__all__ = ["Picture", "render"]
