"""Random Gegenbauer features: orthogonal polynomials of random projections on the sphere."""

import jax

from .._typing import PRNGKey
from ..activations import DualActivation
from ..features._hidden import HiddenFeatures
from ..series import KernelSeries
from ..series._radial import GegenbauerFactors
from ._harmonics import Directions, HarmonicExpansion, Polynomials, harmonic_features
from ._series_method import SeriesMethod


class Gegenbauer(SeriesMethod):
    r"""Random Gegenbauer features of kernels that depend on cosine and norms.

    Use this for inputs on a sphere of few dimensions, with `scope="network"`. On data sets
    `Nystroem` has a smaller error (`experiments/kernel_approximation`).

    Let φ and ψ be the NNGP and NTK features of a position (patches and bias included), d the
    dimension of φ, q its exact variance, `r = √q` and `u = φ / r`. For `w_j` uniform on the sphere
    and `p_l` the orthonormal Gegenbauer polynomials, `E_w[p_l(<w, u>) p_n(<w, u'>)] = 1[l = n]
    P_l(<u, u'>)`. The expansions `k_σ = √(k_σ k_σ') Σ_l Σ_i h_{l,i}(r) h_{l,i}(r') P_l(ρ)`
    (`GegenbauerFactors`) therefore give features

        φ'_j = √(k_σ(q, q, q) / m) z_j,        z_j = Σ_l p_l(<w_j, u>) Σ_i ε_{j,l,i} h_{l,i}(r),
        ψ'_j = √(k_σ'(q, q, q) / m) z'_j (Sψ)_j,

    where `z'` belongs to the derivative's kernel, `ε_{j,l,i}` are random signs (1 for the first
    component i, the only one of a homogeneous σ) and `S` is a random projection. With exact input
    features and `normalize=False` the expected kernels are those of the truncated power series. The
    omitted coefficients are added to the last power, as in `PolySketch`.

    As d grows, `p_l` become Hermite polynomials and `z_j` the truncated series of `σ(<w_j, φ>)`, as
    in `RandomFeatures`. In few dimensions this method samples directions only, not norms.

    With `scope="network"` both kernels of a whole fully connected net are expanded at once, in the
    dimension of the *inputs*, which is often small, and with no error of earlier layers. A degree
    is exact if the width holds all of its spherical harmonics (`harmonic_features`); the other
    degrees are sampled.

    Args: see `SeriesMethod`: degree, width, scope, normalize, radii, max_tail, precision.

    Cost: `2 n |space| (d + d_ψ) m` FLOPs for the projections and O(n |space| m degree) for the
    polynomials; memory as `RandomFeatures`.

    Raises, from `feature_map`:
        ValueError: the series does not converge at the largest of `radii`, or leaves out more than
            `max_tail`; "network" with inputs that have positions.
        NotImplementedError: "network" with a layer that has no power series.

    Source: Han, Zandieh and Avron 2022 (arXiv 2202.03474), random Gegenbauer features and
    generalised zonal kernels. Here there is one feature for each direction, whatever the number of
    radial components, and low degrees are exact.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
        >>> x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
        >>> method = ns.Gegenbauer(degree=4, width=16)
        >>> features = ns.feature_map(model, x, method, key=jax.random.key(0))
        >>> features.n_features["nngp"]
        16
    """

    __init__ = SeriesMethod.__init__  # type checkers would make one of the fields

    def projection(self, features: HiddenFeatures, key: PRNGKey) -> Directions:
        return Directions.draw(features, self.width.one, self.precision, key)

    def factors(self, dual: DualActivation, derivative: bool, projection: Directions):
        return GegenbauerFactors(
            dual, self.degree, projection.dimension, derivative=derivative, **self.table
        )

    def sums(self, factors: GegenbauerFactors, projection: Directions, key: PRNGKey):
        return Polynomials.draw(factors, self.degree, projection, key)

    def expand_series(
        self,
        series: KernelSeries,
        radii: tuple[float, float],
        features: HiddenFeatures,
        *,
        key: PRNGKey,
    ):
        kernels = zip(series.kernels(), jax.random.split(key), strict=False)
        return HarmonicExpansion(
            tuple(harmonic_features(self, kernel, radii, features, own) for kernel, own in kernels)
        )
