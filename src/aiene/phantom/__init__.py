"""A parametric head-and-neck CT phantom with planted lymph nodes, smooth and with extranodal extension."""

from aiene.phantom.phantom import Phantom, make_phantom
from aiene.phantom.planting import PlantedNode
from aiene.phantom.settings import PhantomSettings, Scanner

__all__ = ["Phantom", "PhantomSettings", "PlantedNode", "Scanner", "make_phantom"]
