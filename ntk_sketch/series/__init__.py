"""Series of nonlinearities and of their dual kernels.

The module has Hermite and Gegenbauer coefficients at any norm, tables of them, and fits of series
to values of a kernel. Coefficients are computed on the host, in NumPy float64.
"""

from ._fit import SeriesFit as SeriesFit
from ._fit import fit_series as fit_series
from ._gegenbauer import GegenbauerCoefficients as GegenbauerCoefficients
from ._gegenbauer import gegenbauer_coefficients as gegenbauer_coefficients
from ._gegenbauer import gegenbauer_from_powers as gegenbauer_from_powers
from ._gegenbauer import gegenbauer_polynomials as gegenbauer_polynomials
from ._hermite import HermiteCoefficients as HermiteCoefficients
from ._hermite import derivative_coefficients as derivative_coefficients
from ._hermite import hermite_coefficients as hermite_coefficients
from ._power_series import KernelSeries as KernelSeries
from ._power_series import input_series as input_series
from ._recovery import ZonalRecovery as ZonalRecovery
from ._recovery import recover_zonal as recover_zonal
from ._table import HermiteTable as HermiteTable
