"""`TensorSketch`: sketches of tensor powers and products of vectors, by FFT."""

import math
import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import equinox as eqx
import jax
from jax import numpy as jnp
from jaxtyping import Float

from .._arguments import checked_integer, checked_key
from .._typing import Array, Inputs, PRNGKey
from ..numerics._precision import promoted
from ._count_sketch import CountSketch
from ._sketch import Sketch
from ._sparse import Sparse, checked_inputs


class TensorSketch(Sketch):
    r"""The sketch of a tensor product `x_1 ⊗ ... ⊗ x_q` by circular convolution of count sketches.

        S(x_1, ..., x_q) = F⁻¹(F C_1 x_1 ⊙ ... ⊙ F C_q x_q),
        E <S(x_1, ..., x_q), S(y_1, ..., y_q)> = <x_1, y_1> ... <x_q, y_q>,

    Use this for sparse inputs, or for low degrees: the variance grows exponentially in q. For high
    degrees of dense vectors use `PolynomialSketch`.

    `C_l` are independent `CountSketch`es and `F` is the discrete Fourier transform. The result is
    the count sketch of the tensor product whose hash is the sum of q hashes and whose sign is the
    product of q signs. Inputs are real, so that half of each spectrum is enough.

    For one input, `x_l = x` and `y_l = y`,

        Var <S x, S y> <= (2 + 3^q) / m ‖x‖^{2q} ‖y‖^{2q}

    (Avron, Nguyen and Woodruff 2014); `tensor_sketch_variance` is its exact value.

    Inputs are dense or sparse, as those of `CountSketch`.

    Cost: q count sketches and `q + 1` transforms of `2.5 m log₂ m` FLOPs; of all powers 0..q twice
    the transforms.

    Source: Pham and Pagh 2013 (KDD).

    Attributes:
        d: length of the inputs.
        counts: C_1, ..., C_q.

    Example:
        >>> from ntk_sketch.sketches import TensorSketch
        >>> import jax
        >>> sketch = TensorSketch(8, 4, degree=2, key=jax.random.key(0))
        >>> sketch(jax.numpy.ones((3, 8))).shape
        (3, 4)
    """

    d: int = eqx.field(static=True)
    counts: tuple[CountSketch, ...]

    def __init__(self, d: int, m: int, degree: int, *, key: PRNGKey, dtype=None):
        """Draws the sketch.

        Args:
            d: length of the inputs.
            m: length of the result. The variance falls as 1/m.
            degree: q, 1 or more.
            key: of `jax.random`.
            dtype: of the signs; None: JAX's default.

        Raises:
            TypeError: d, m or degree is not an integer; dtype is not real and floating.
            ValueError: d, m or degree is below 1.
        """
        self.d, self.m = checked_integer(d, "d"), checked_integer(m, "m")
        keys = jax.random.split(checked_key(key), checked_integer(degree, "degree"))
        self.counts = tuple(CountSketch(d, m, key=each, dtype=dtype) for each in keys)

    @property
    def degree(self) -> int:
        """The number of factors, q."""
        return len(self.counts)

    def __call__(self, *x: Inputs | Sparse) -> Float[Array, "*n m"]:
        """`S(x, ..., x)` of one input, or `S(x_1, ..., x_q)` of q inputs, whose leading axes
        broadcast.

        Raises:
            TypeError: another number of inputs; inputs are not real and floating.
            ValueError: a last axis is not d long.
        """
        if len(x) not in (1, self.degree):
            raise TypeError(
                f"This sketch takes 1 or {self.degree} inputs, as many as its degree; got {len(x)}."
            )
        names = ["x"] if len(x) == 1 else [f"x_{i}" for i in range(1, len(x) + 1)]
        checked = [checked_inputs(x, self.d, name) for x, name in zip(x, names, strict=True)]
        return self._convolution(checked)

    def powers(self, x: Inputs | Sparse) -> Float[Array, "*n powers m"]:
        """Sketches of the powers `x^{⊗0}, ..., x^{⊗q}` of one input, from the same count sketches.

        Power j is the sketch of the first j factors. Power 0 is the first unit vector, whose
        spectrum is 1.

        Raises:
            TypeError, ValueError: as for a call.
        """
        return self._convolutions(checked_inputs(x, self.d))

    @jax.jit  # all leaves are arrays, and it has less overhead than `eqx.filter_jit`
    def _convolution(self, inputs: Sequence) -> Array:
        if self.degree == 1:
            return self.counts[0]._apply(inputs[0])
        counts = self._apply_counts(list(inputs) * (self.degree // len(inputs)))
        spectrum = math.prod(_spectrum(count) for count in counts)
        return jnp.fft.irfft(spectrum, n=self.m).astype(jnp.result_type(*counts))

    @jax.jit
    def _convolutions(self, x: Any) -> Array:
        counts = self._apply_counts([x] * self.degree)
        spectra = [_spectrum(count) for count in counts]
        products = accumulate(spectra, operator.mul, initial=jnp.ones_like(spectra[0]))
        return jnp.fft.irfft(jnp.stack(list(products), axis=-2), n=self.m).astype(counts[0].dtype)

    def _apply_counts(self, inputs: Sequence) -> list[Array]:
        return [count._apply(x) for count, x in zip(self.counts, inputs, strict=True)]


def tensor_sketch_variance(
    d: int,
    m: int,
    degree: int,
    inner: Float[Inputs, "*pairs"],
    squared_norms: Float[Inputs, "*pairs"],
    overlap: Float[Inputs, "*pairs"],
) -> Float[Inputs, "*pairs"]:
    r"""The exact variance of `<S x, S y>` for `TensorSketch(d, m, degree)` of one input:

        1/m² [ g (t² + b + c)^q + (m - g) ((t² + b + λc)^q + (t² + λb + c)^q)
               + (m² - 2m + g) (t² + λb + λc)^q ] - t^{2q},

    with `t = <x, y>`, `b = ‖x‖²‖y‖² - s`, `c = t² - s` and `s = Σ_i x_i² y_i²`. g is 1 for odd m
    and 2 for even m. `λ = (pm - 1) / (m - 1)` with the probability p that two coordinates share a
    bucket (`λ = 0` for independent buckets).

    Derivation: `<S x, S y>²` is a sum over four multi-indices (i, i', k, k'). In each factor the
    signs leave the terms with `i = i', k = k'` (t² in total), `i = k ≠ i' = k'` (b) and `i = k' ≠
    i' = k` (c). Their hash differences `δ = h(i) - h(i')` add (0, 0), (δ, δ) and (δ, -δ) to the
    differences of (i, i') and (k, k'). Both sums are 0 modulo m with probability `1/m² Σ_{u,v} E
    ω^{...}` over m² pairs of frequencies, where `ω = exp(2πi/m)` and `E ω^{uδ}` is 1 for `u = 0`
    and λ otherwise. Each factor is then `t² + b λ^{[u+v≠0]} + c λ^{[u-v≠0]}`.

    Args:
        d: length of the inputs.
        m: width of the sketch.
        degree: q.
        inner: t.
        squared_norms: `‖x‖²‖y‖²`.
        overlap: s.

    Cost: `O(log degree)` FLOPs a pair.
    """
    places = math.ceil(d / m) * m
    shared = (places // m - 1) / (places - 1) if places > 1 else 0.0
    decay = (shared * m - 1) / (m - 1) if m > 1 else 0.0
    square = inner * inner
    same, crossed = squared_norms - overlap, square - overlap
    g = 2 - m % 2
    total = g * (square + same + crossed) ** degree
    total = total + (m - g) * (square + same + decay * crossed) ** degree
    total = total + (m - g) * (square + decay * same + crossed) ** degree
    total = total + (m * m - 2 * m + g) * (square + decay * (same + crossed)) ** degree
    return total / m**2 - square**degree


def _spectrum(count: Array) -> Array:
    # Fourier transforms exist only for 32 and 64 bits.
    return jnp.fft.rfft(count.astype(promoted(count.dtype, jnp.float32)))
