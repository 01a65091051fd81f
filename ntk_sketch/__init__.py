"""Feature maps for infinitely wide networks."""

from . import _nt  # first: it makes Neural Tangents importable

__version__ = "0.1.0"
