"""Feature maps for infinitely wide networks."""

__version__ = "0.1.0"
