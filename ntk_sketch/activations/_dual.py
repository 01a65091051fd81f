"""A nonlinearity seen as kernels, taken from Neural Tangents' own triple."""

from typing import Any

import jax
from jax import numpy as jnp

from .._nt import Kernel
from .._typing import Array
from ._elementary import vectorised


class DualActivation:
    """The nonlinearity `σ` of an NT layer and its dual kernels.

    With `(u, v)` Gaussian of mean zero, variances `q, q'` and covariance `c`,

        k_σ(c, q, q') = E[σ(u) σ(v)],        k_σ'(c, q, q') = E[σ'(u) σ'(v)].

    Nothing is written twice: `σ` is the layer's `apply_fn`, `σ'` its derivative, and the kernels
    are the layer's own `kernel_fn`, applied to an `nt.Kernel` that holds `(nngp, ntk, cov1, cov2) =
    (c, 1, q, q')`. So a layer that a user registers has them too.

    Args:
        triple: NT's `(init_fn, apply_fn, kernel_fn)` of an elementwise layer.
        name: how errors call the layer.
        derivative: `(factor, triple)` where `σ' = factor · (the nonlinearity of triple)`: then
            `k_σ'` is `factor²` times that layer's `nngp`, instead of what NT differentiates. For
            layers whose derivative NT computes unstably.
        interior: keep cosines 4 eps away from ±1, for kernels whose formula breaks down there. That
            costs an error of about `√eps` on pairs of equal positions.
    """

    def __init__(
        self, triple, name: str, *, derivative: tuple | None = None, interior: bool = False
    ):
        _, self._apply_fn, self._kernel_fn = triple
        self._derivative = derivative
        self._interior = interior
        self.name = name

    def __repr__(self) -> str:
        return f"DualActivation({self.name})"

    def value_and_derivative(self, u: Array) -> tuple[Array, Array]:
        """`σ(u)` and `σ'(u)`, elementwise.

        Raises:
            NotImplementedError: the layer is a kernel without a finite network (NT's
                `ExpNormalized`).
        """
        try:
            return jax.jvp(lambda v: self._apply_fn((), v), (u,), (jnp.ones_like(u),))
        except NotImplementedError as error:
            raise NotImplementedError(
                f"{self.name} has no finite network (its `apply_fn` is not implemented), so random"
                " features of it cannot be drawn. Use a method that needs the kernel alone, such as"
                " Exact(), or Nystroem without residual features."
            ) from error

    def __call__(self, c: Array, q: Array, q_other: Array) -> tuple[Array, Array]:
        """`k_σ` and `k_σ'` at covariances `c` and variances `q`, `q_other`, broadcast together.

        Finite at `q = 0` too, where the limit of small variances is taken.
        """
        c, q, q_other = jnp.broadcast_arrays(c, *map(_positive, (q, q_other)))
        # Within rounding of it a cosine is one: at a kink, rounding would become its square root.
        # Just above one, NT's `sqrt(q q' - c²)` is cut off at 0 exactly.
        eps, one = float(jnp.finfo(c.dtype).eps), jnp.sqrt(q * q_other)
        largest = (1 + (-4 if self._interior else 4) * eps) * one
        c = jnp.where(jnp.abs(c) >= (1 - 32 * eps) * one, jnp.sign(c) * largest, c)
        value, derivative = vectorised(self._nt_kernels)(c, q, q_other)
        return value, derivative

    def _nt_kernels(self, c: Array, q: Array, q_other: Array) -> tuple[Array, Array]:
        # `diagonal_spatial` makes NT treat every entry on its own.
        make: Any = Kernel  # a dataclass of NT's own kind, whose fields type checkers do not see
        kernel = make(
            nngp=c[None, None],
            ntk=jnp.ones_like(c)[None, None],
            cov1=q[None],
            cov2=q_other[None],
            x1_is_x2=jnp.zeros((), bool),
            is_gaussian=True,
            is_reversed=False,
            is_input=False,
            diagonal_batch=True,
            diagonal_spatial=True,
            shape1=(1, *c.shape, 1),
            shape2=(1, *c.shape, 1),
            batch_axis=0,
            channel_axis=c.ndim + 1,
        )
        out = self._kernel_fn(kernel)
        value, derivative = out.nngp, out.ntk
        if self._derivative is not None:
            factor, (_, _, kernel_fn) = self._derivative
            derivative = factor**2 * kernel_fn(kernel).nngp
        value, derivative = (
            jnp.broadcast_to(k, (1, 1, *c.shape))[0, 0].astype(c.dtype) for k in (value, derivative)
        )
        return value, derivative


def _positive(q: Array) -> Array:
    """A variance of 0 (an all-zero patch) as a tiny one: the duals' limit is right, their formulas
    divide by it.
    """
    q = jnp.asarray(q)
    return jnp.maximum(q, 1e-18 if q.dtype.itemsize < 8 else 1e-100)
