"""`SeriesMethod`: the common part of methods that expand kernels in series."""

import abc
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .._arguments import checked_integer
from .._typing import Array, PerKernel, PRNGKey
from ..activations import DualActivation
from ..features._hidden import HiddenFeatures
from ..features._variances import Variances
from ..numerics._precision import Precision, checked_precision
from ..series import KernelSeries
from ..series._checks import checked_degree
from ..series._kernel_values import check_degree_of_kernel
from ._directions import orthogonal_directions
from ._method import Method
from ._network import Network, Scope, checked_scope
from ._network_series import network_series
from ._norms import safe_sqrt, with_exact_norms
from ._products import random_products
from ._schedule import Schedule, widths


class SeriesMethod(Method):
    """A method that expands kernels in series, for one nonlinearity or a whole network.

    For one nonlinearity, with NNGP features φ, NTK features ψ and both kernels scaled to a diagonal
    of 1,

        φ' = √k_σ(q, q, q) sums(r, seen),        ψ' = √k_σ'(q, q, q) sums'(r, seen) ⊙ Sψ,

    where `seen` is the projection of `φ / r`, `r = √q`, and S another random projection.

    Args:
        degree: the largest degree, from 1 to 200. Raise it for nonlinearities that are not smooth
            and for large norms.
        width: number m of features of φ' and of ψ' each, at every nonlinearity; or a schedule, one
            number for each nonlinearity in the order of the model. With `scope="network"` the
            number of features of either kernel in total.
        scope: "layer"; or "network" for inputs (n, d) and models of `Dense`, nonlinearities,
            `LayerNorm`, and sums of branches.
        normalize: rescale every feature vector to its exact norm, `‖φ'_s‖² = K'(s, s)` and `‖ψ'_s‖²
            = Θ'(s, s)`, as `RandomFeatures` does.
        radii: the smallest and largest norm r at which series are tabulated. Outside of this range
            the series of the nearest end is used. `None`: 1e-3 to 100; with `scope="network"` and
            example inputs, their norms with a margin of a factor of 1.5. For a network the diagonal
            is tabulated too, and extrapolated by a power law, which is exact for homogeneous
            nonlinearities without bias. Give `radii` if later inputs have other norms than the
            examples.
        max_tail: refuse a series that leaves out more than this share of `k_σ`, or of the network's
            kernels, at a norm within `radii`. `None`: refuse none. With `normalize` the diagonal is
            exact whatever is left out.
        precision: of the inputs of the projections: "full" (that of the features),
            "tensorfloat32" or "bfloat16".
    """

    uses_function = "for a series"

    degree: int = eqx.field(static=True)
    width: Schedule = eqx.field(static=True)
    scope: Scope = eqx.field(static=True)
    normalize: bool = eqx.field(static=True)
    radii: tuple[float, float] | None = eqx.field(static=True)
    max_tail: float | None = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)

    def __init__(
        self,
        degree: int,
        width: int | Sequence[int] | Schedule,
        *,
        scope: Scope = "layer",
        normalize: bool = True,
        radii: tuple[float, float] | None = None,
        max_tail: float | None = None,
        precision: Precision = "full",
    ):
        self.degree = checked_degree(checked_integer(degree, "degree"))
        self.width = widths(width)
        self.scope = checked_scope(scope, self.width)
        self.normalize = bool(normalize)
        self.radii = _checked_radii(radii)
        if max_tail is not None and not max_tail >= 0:
            raise ValueError(f"max_tail is a share, 0 or more, or None; got {max_tail!r}.")
        self.max_tail = None if max_tail is None else float(max_tail)
        self.precision = checked_precision(precision)

    @property
    def whole_network(self) -> bool:
        return self.scope == "network"

    @property
    def looks_at_data(self) -> bool:
        """Whether the norms of a network's inputs are taken from the example inputs."""
        return self.whole_network and self.radii is None

    @property
    def uses_variances(self) -> bool:
        return not self.whole_network

    @property
    def table(self) -> dict[str, Any]:
        """Settings of the table of a nonlinearity's series."""
        return {"radii": self.radii or (1e-3, 1e2), "max_tail": self.max_tail}

    def check_sample(self, dual, positions):
        if isinstance(dual, DualActivation) and dual.unit is None and not dual.has_function:
            check_degree_of_kernel(dual, self.degree)

    def check_tail(
        self, kept: np.ndarray, diagonal: np.ndarray, radii: tuple[float, float]
    ) -> None:
        """Refuses a network's series that leaves out more than `max_tail` of the kernel.

        Args:
            kept: coefficients (r, r, l) at the norms of a uniform grid in log r.
            diagonal: of the kernel (r,).
            radii: the smallest and largest of these norms.

        Raises:
            ValueError: names the norm at which most is left out.
        """
        whole = np.where(diagonal > 0, diagonal, 1)
        tail = (diagonal - np.einsum("iil->i", kept)) / whole
        worst = int(np.argmax(tail))
        if self.max_tail is not None and tail[worst] > self.max_tail:
            norms = np.geomspace(*radii, len(diagonal))
            raise ValueError(
                f"the series of the network has not converged at norm {norms[worst]:.6g} of its"
                f" inputs: degree {self.degree} leaves out {tail[worst]:.3g} of the kernel, more"
                f" than max_tail = {self.max_tail:.3g}. Raise the degree or bring the inputs to a"
                " smaller norm."
            )

    @abc.abstractmethod
    def projection(self, features: HiddenFeatures, key: PRNGKey) -> Any:
        """Draws a projection of φ for both kernels. `projection(features, s, radius)` returns the
        projected `φ / r`, and ψ projected on `s`.
        """

    @abc.abstractmethod
    def factors(self, dual: DualActivation, derivative: bool, projection: Any) -> Any:
        """The radial factors `h_{l,i}(r)` of a nonlinearity's kernel or of its derivative's."""

    @abc.abstractmethod
    def sums(self, factors: Any, projection: Any, key: PRNGKey) -> Any:
        """Draws `sums`: `sums(radius, seen)` returns features of a kernel of diagonal 1."""

    @abc.abstractmethod
    def expand_series(
        self,
        series: KernelSeries,
        radii: tuple[float, float],
        features: HiddenFeatures,
        *,
        key: PRNGKey,
    ) -> Any:
        """`expand_network`, given the series of the network's kernels.

        Args:
            series: the kernels at the norms of a uniform grid in log r.
            radii: the smallest and largest of these norms.
            features: shapes of the inputs.
            key: of `jax.random`.
        """

    def expand_network(self, network: Network, features: HiddenFeatures, *, key: PRNGKey) -> Any:
        series, radii = network_series(network, features, self.radii, self.degree)
        shapes = eqx.filter_eval_shape(lambda features: features, features)
        return self.expand_series(series, radii, shapes, key=key)

    @property
    def compressed_width(self) -> int | None:
        return self.width.one

    def expand_product(self, name: str, branches: list[HiddenFeatures], *, key: PRNGKey):
        return random_products(branches, self.width.one, key, self.normalize, self.precision)

    def expand(self, dual: DualActivation, features: HiddenFeatures, *, key: PRNGKey):
        key_projection, key_sums, key_ntk = jax.random.split(key, 3)
        projection = self.projection(features, key_projection)
        kinds, s = (False, True), None
        if features.ntk is None:
            kinds = (False,)
        else:
            d, m = features.ntk_vectors().dimension, self.width.one
            s = orthogonal_directions(key_ntk, d, m, features.nngp[0].dtype, chi_norms=False)
        sums = tuple(
            self.sums(self.factors(dual, derivative, projection), projection, own)
            for derivative, own in zip(kinds, jax.random.split(key_sums), strict=False)
        )
        return SeriesExpansion(projection, s, sums, dual, self.normalize)


class SeriesExpansion(eqx.Module):
    """Drawn features of one nonlinearity."""

    projection: Any
    s: Array | None
    sums: tuple[Any, ...]
    dual: DualActivation
    normalize: bool = eqx.field(static=True)

    def __call__(self, features: HiddenFeatures, exact: Variances | None) -> PerKernel:
        q = features.variances.diagonals().same
        radius = safe_sqrt(q)
        seen, v = self.projection(features, self.s, radius)
        z = [kernel(radius, seen) for kernel in self.sums]  # expected squared norm 1
        if self.normalize and exact is not None:
            return with_exact_norms(z[0], None if v is None else v * z[1], exact)
        diagonals = zip(z, self.dual(q, q, q), strict=False)
        z = [safe_sqrt(diagonal)[..., None] * kernel for kernel, diagonal in diagonals]
        return PerKernel(z[0], None if v is None else v * z[1])


def _checked_radii(value) -> tuple[float, float] | None:
    if value is None:
        return None
    least, largest = map(float, value)
    if not 0 < least < largest < math.inf:
        raise ValueError(
            f"radii must be the least and the largest norm, 0 < least < largest, got {value!r}."
        )
    return least, largest
