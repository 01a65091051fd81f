"""How near features are to the exact kernels."""

from ._approximation_error import approximation_error as approximation_error
