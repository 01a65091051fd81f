"""Nonlinearities and their dual kernels as series: Hermite, Taylor and Gegenbauer coefficients at
any norm, tables of them, fits and recovery.

Coefficients are computed on the host, in NumPy float64.
"""

from ._checks import checked_degree as checked_degree
from ._closed_forms import ab_relu_coefficients as ab_relu_coefficients
from ._closed_forms import cos_coefficients as cos_coefficients
from ._closed_forms import erf_coefficients as erf_coefficients
from ._closed_forms import exp_coefficients as exp_coefficients
from ._closed_forms import exp_normalized_coefficients as exp_normalized_coefficients
from ._closed_forms import gabor_coefficients as gabor_coefficients
from ._closed_forms import gaussian_coefficients as gaussian_coefficients
from ._closed_forms import gelu_coefficients as gelu_coefficients
from ._closed_forms import monomial_coefficients as monomial_coefficients
from ._closed_forms import polynomial_coefficients as polynomial_coefficients
from ._closed_forms import rbf_coefficients as rbf_coefficients
from ._closed_forms import rectified_monomial_coefficients as rectified_monomial_coefficients
from ._closed_forms import sign_coefficients as sign_coefficients
from ._closed_forms import sin_coefficients as sin_coefficients
from ._fit import SeriesFit as SeriesFit
from ._fit import fit_series as fit_series
from ._gegenbauer import GegenbauerCoefficients as GegenbauerCoefficients
from ._gegenbauer import gegenbauer_coefficients as gegenbauer_coefficients
from ._gegenbauer import gegenbauer_from_powers as gegenbauer_from_powers
from ._gegenbauer import gegenbauer_polynomials as gegenbauer_polynomials
from ._gegenbauer import log_harmonic_dimension as log_harmonic_dimension
from ._gegenbauer import orthonormal_sequence as orthonormal_sequence
from ._hermite import HermiteCoefficients as HermiteCoefficients
from ._hermite import derivative_coefficients as derivative_coefficients
from ._hermite import hermite_coefficients as hermite_coefficients
from ._power_series import KernelSeries as KernelSeries
from ._power_series import input_series as input_series
from ._radial import GegenbauerFactors as GegenbauerFactors
from ._radial import RadialFactors as RadialFactors
from ._recovery import ZonalRecovery as ZonalRecovery
from ._recovery import recover_zonal as recover_zonal
from ._table import HermiteTable as HermiteTable
from ._taylor import HomogeneousDual as HomogeneousDual
from ._taylor import ab_relu_dual as ab_relu_dual
from ._taylor import arc_cosine_coefficients as arc_cosine_coefficients
from ._taylor import homogeneous_dual as homogeneous_dual
