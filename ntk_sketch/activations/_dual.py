"""`DualActivation`: the dual kernels of a nonlinearity, from Neural Tangents' triple."""

import functools
from typing import Any

import equinox as eqx
import jax
from jax import numpy as jnp

from .._nt import Kernel
from .._typing import Array, Inputs
from ..identity._specification import Given, Specification, in_dtype
from ..identity._structure import once_per_structure
from ._dual_kernels import DualKernels
from ._entrywise import entrywise, of_one_entry


class DualActivation(DualKernels):
    """The nonlinearity `σ` of an NT layer and its dual kernels.

    Use this when you write a method, or to evaluate the kernels of a nonlinearity directly.

    With `(u, v)` Gaussian of mean zero, variances `q, q'` and covariance `c`,

        k_σ(c, q, q') = E[σ(u) σ(v)],        k_σ'(c, q, q') = E[σ'(u) σ'(v)].

    All are taken from the layer: `σ` is its `apply_fn`, `σ'` the derivative of that, and the
    kernels are its `kernel_fn` applied to an `nt.Kernel` with `(nngp, ntk, cov1, cov2) = (c, 1, q,
    q')`. Layers that users register therefore have dual kernels too.

    It is a pytree whose leaves are the real-valued arguments of the layer, such as a slope. Duals
    of equal layers are equal. Duals that differ only in such arguments share compiled code.

    Args:
        layer: an elementwise layer of `ntk_sketch.stax`, or the triple of one.
        derivative: `(factor, specification)` if `σ' = factor · (the nonlinearity specified)`.
            `k_σ'` is then `factor²` times that layer's `nngp`. Give it for layers whose derivative
            NT computes unstably.
        interior: keep cosines 4 eps away from ±1. Set it for kernels whose formula fails there; it
            costs an error of about `√eps` on pairs of equal positions.
        degree: p if `σ(s u) = s^p σ(u)` for all s > 0. The kernels are then computed at unit
            variances and multiplied by powers of `√q` and `√q'`, which avoids overflow and
            underflow. `None`: σ is not known to be homogeneous.
        smooth: whether σ and σ' are known to have no jumps, which saves a search for them.

    Example:
        >>> from jax import numpy as jnp
        >>> from ntk_sketch.activations import DualActivation
        >>> from ntk_sketch import stax
        >>> dual = DualActivation(stax.Relu())
        >>> one = jnp.ones(())
        >>> [round(float(k), 3) for k in dual(0 * one, one, one)]  # 1 / (2π) and 1 / 4
        [0.159, 0.25]
    """

    specification: Specification
    _derivative: Specification | None
    _factor: int = eqx.field(static=True)
    _interior: bool = eqx.field(static=True)
    degree: float | int | None = eqx.field(static=True)
    smooth: bool = eqx.field(static=True)

    def __init__(
        self,
        layer,
        *,
        derivative: tuple[int, Specification] | None = None,
        interior: bool = False,
        degree: float | int | None = None,
        smooth: bool = False,
    ):
        specification = getattr(layer, "specification", None)
        if specification is None:
            specification = Specification.of(Given(tuple, "layer", tuple(layer)), {})
        self._factor, self._derivative = derivative or (1, None)
        self._interior = interior
        self.degree, self.smooth = degree, smooth
        self.specification = specification
        if specification.numbers and not _takes_traced_numbers(specification.like()):
            self.specification = specification.frozen()

    @property
    def name(self) -> str:
        """The name of the nonlinearity, for errors."""
        return self.specification.name

    @property
    def has_function(self) -> bool:
        """Whether there is a `σ`: NT's `ExpNormalized` is a kernel without a finite network."""
        return _has_function(self.specification.like())

    @property
    def unit(self) -> "DualActivation | None":
        """A nonlinearity σ₁ whose kernels are these at unit variances, or `None`.

        Kernels without a finite network that are homogeneous of `degree` have one. `k_σ` is then
        the kernel of the random function `‖φ‖^degree σ₁(w·φ / ‖φ‖)`, and its series is that of σ₁.
        It is made by the attribute `unit` of the layer's rule, called with the layer's arguments.
        """
        make = getattr(self.specification.constructor, "unit", None)
        return None if make is None else make(**self.specification.arguments)

    def __repr__(self) -> str:
        return f"DualActivation({self.name})"

    def __eq__(self, other) -> bool:
        return isinstance(other, DualActivation) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def _parts(self) -> tuple:
        settings = self._factor, self._interior, self.degree, self.smooth
        return self.specification, self._derivative, *settings

    def value_and_derivative(self, u: Inputs) -> tuple[Array, Array]:
        """`σ(u)` and `σ'(u)`, elementwise.

        Raises:
            NotImplementedError: the layer is a kernel without a finite network (NT's
                `ExpNormalized`).
        """
        self.check_function()
        _, apply_fn, _ = in_dtype(self.specification, u.dtype).triple()
        return jax.jvp(lambda v: apply_fn((), v), (u,), (jnp.ones_like(u),))

    def check_function(self) -> None:
        """Refuses a kernel without a finite network."""
        if not self.has_function:
            raise NotImplementedError(
                f"{self.name} has no finite network (its `apply_fn` is not implemented), so random"
                " features of it cannot be drawn. Use a method that needs the kernel alone, such as"
                " Exact(), PolySketch, or Nystroem without residual features."
            )

    def __call__(self, c: Array, q: Array, q_other: Array) -> tuple[Array, Array]:
        """`k_σ` and `k_σ'` at covariances `c` and variances `q`, `q_other`, broadcast together.

        At `q = 0` they are the limit of small variances. If the product of two variances overflows
        or underflows, they are right only for homogeneous `σ`.
        """
        if self.degree is None:
            formula, entries = self._kernels, (c, _positive(q), _positive(q_other))
        else:
            formula = self._kernels_of_homogeneous
            s, s_other = (jnp.sqrt(jnp.maximum(v, jnp.finfo(c.dtype).tiny)) for v in (q, q_other))
            entries = c, s, s_other, 1 / s, 1 / s_other
        entries = jnp.broadcast_arrays(*entries)
        own = in_dtype(self, c.dtype)
        kernels = entrywise(formula, _of_one(own, formula.__name__, len(entries), str(c.dtype)))
        value, derivative = kernels(*entries, *jax.tree.leaves(own))
        return value, derivative

    def _kernels(self, c: Array, q: Array, q_other: Array, *numbers: Array):
        one = jnp.sqrt(q * q_other)
        same = jnp.abs(q - q_other) <= 32 * _eps(c) * one
        return self._nt_kernels(self._at_one(c, one, same), q, q_other, *numbers)

    def _kernels_of_homogeneous(
        self, c: Array, s: Array, s_other: Array, inverse: Array, inverse_other: Array, *numbers
    ):
        c, one, scale = c * inverse * inverse_other, jnp.ones_like(c), s * s_other
        same = jnp.abs(s - s_other) <= 16 * _eps(c) * s
        value, derivative = self._nt_kernels(self._at_one(c, one, same), one, one, *numbers)
        if self.degree:
            value = value * scale**self.degree
        if self.degree and self.degree != 1:
            derivative = derivative * scale ** (self.degree - 1)
        return value, derivative

    def _at_one(self, c: Array, one: Array, same: Array) -> Array:
        """Covariances, with cosines within rounding of one set to one.

        Two vectors are taken as equal if their cosine is one and their variances agree, both within
        rounding. Otherwise kernels with a kink there would turn an error of eps into one of √eps.
        Parallel vectors of different norms are not changed: on a line many cosines are that close
        to one.
        """
        # At a cosine just above one, NT clips its `sqrt(q q' - c²)` to exactly 0.
        largest = (1 + (-4 if self._interior else 4) * _eps(c)) * one
        nearest = jnp.where(same, 1 - 32 * _eps(c), 1.0) * one
        return jnp.where(jnp.abs(c) >= nearest, jnp.sign(c) * largest, c)

    def _nt_kernels(self, c: Array, q: Array, q_other: Array, *numbers: Array):
        """Both kernels by NT's formulas, with `numbers` in place of the layer's real arguments."""
        own = jax.tree.unflatten(jax.tree.structure(self), numbers)
        value, derivative = _entrywise(own.specification, c, q, q_other)
        if own._derivative is not None:
            lower, _ = _entrywise(own._derivative, c, q, q_other)
            derivative = self._factor**2 * lower
        return value, derivative


def _entrywise(specification: Specification, c: Array, q: Array, q_other: Array):
    """`nngp` and `ntk` of a layer's `kernel_fn`, elementwise."""
    make: Any = Kernel  # NT's own kind of dataclass, whose fields type checkers do not know
    kernel = make(
        nngp=c[None, None],
        ntk=jnp.ones_like(c)[None, None],
        cov1=q[None],
        cov2=q_other[None],
        x1_is_x2=jnp.zeros((), bool),
        is_gaussian=True,
        is_reversed=False,
        is_input=False,
        diagonal_batch=True,  # these two make NT treat every entry separately
        diagonal_spatial=True,
        shape1=(1, *c.shape, 1),
        shape2=(1, *c.shape, 1),
        batch_axis=0,
        channel_axis=c.ndim + 1,
    )
    _, _, kernel_fn = specification.triple()
    out = kernel_fn(kernel)
    return tuple(
        jnp.broadcast_to(k, (1, 1, *c.shape))[0, 0].astype(c.dtype) for k in (out.nngp, out.ntk)
    )


@once_per_structure
def _of_one(dual: DualActivation, formula: str, count: int, dtype: str):
    """NT's formulas traced at single numbers, once for arrays of all shapes."""
    one = jax.ShapeDtypeStruct((), dtype)
    return of_one_entry(getattr(dual, formula), *[one] * count, *jax.tree.leaves(dual))


def _eps(x: Array) -> float:
    return float(jnp.finfo(x.dtype).eps)


def value_and_derivative(dual: DualActivation, u: Inputs) -> tuple[Array, Array]:
    """`σ(u)` and `σ'(u)` as one compiled program, for calls outside of `jit`."""
    return _value_and_derivative(in_dtype(dual, jax.dtypes.canonicalize_dtype(u.dtype)), u)


@eqx.filter_jit
def _value_and_derivative(dual: DualActivation, u: Inputs) -> tuple[Array, Array]:
    return dual.value_and_derivative(u)


@functools.lru_cache(maxsize=1024)
def _takes_traced_numbers(specification: Specification) -> bool:
    """Whether JAX can trace a layer's formulas with respect to its real arguments."""

    def formulas(numbers, u):
        own = eqx.tree_at(lambda s: s.numbers, specification, numbers)
        kernels = _entrywise(own, u, u, u)
        try:
            return kernels, own.triple()[1]((), u)
        except NotImplementedError:  # a kernel without a finite network
            return kernels

    try:
        jax.eval_shape(formulas, specification.numbers, _one_number())
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
    ):
        return False
    return True


@functools.lru_cache(maxsize=1024)
def _has_function(specification: Specification) -> bool:
    try:
        jax.eval_shape(lambda u: specification.triple()[1]((), u), _one_number())
    except NotImplementedError:
        return False
    return True


def _one_number() -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1,), jnp.result_type(float))


def _positive(q: Array) -> Array:
    """The variance, or a tiny one in place of 0 (an all-zero patch), by which formulas divide."""
    q = jnp.asarray(q)
    return jnp.maximum(q, 1e-18 if q.dtype.itemsize < 8 else 1e-100)
