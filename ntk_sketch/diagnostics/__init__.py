"""Errors of features against exact kernels."""

from ._approximation_error import approximation_error as approximation_error
from ._errors import centred_error as centred_error
from ._errors import relative_error as relative_error
from ._errors import spectral_error as spectral_error
from ._exact_kernels import DamagedFile as DamagedFile
from ._exact_kernels import exact_kernels as exact_kernels
