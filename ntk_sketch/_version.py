"""The version of this package, for all of its rooms."""

__version__ = "0.2.0"
