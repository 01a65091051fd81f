"""Sketches of tensor powers of any degree: the tree of Ahle et al."""

import equinox as eqx
from jaxtyping import Float

from .._arguments import checked_integer
from .._typing import Array, Inputs, PRNGKey
from ._power_tree import PowerTree, tree_powers
from ._sketch import Sketch, checked_vectors


class PolynomialSketch(Sketch):
    r"""Unbiased sketches of the tensor powers `x^{⊗l}`, l = 0..degree, for any degree:

        E <S x^{⊗l}, S x'^{⊗l}> = <x, x'>^l.

    Use this for polynomial kernels, or power series of kernels, of dense vectors: the length m that
    an error needs grows linearly in the degree, not exponentially as for `TensorSketch`.

    It is a `PowerTree` whose leaves are x itself, which adds no noise of a separate sketch. Degree
    1 is exact for d <= m (x padded with zeros); otherwise it is the `SRHT` of x. The variance is
    that of the tree,

        Var <S x^{⊗l}, S x'^{⊗l}> <= ((1 + g)^{l-1} - 1) ‖x‖^{2l} ‖x'‖^{2l},    g = 4 / (m - 1)

    for m a power of two and d <= m; otherwise with `g = 8 / (m - 1)` and exponent l. An error ε
    therefore needs m = O(l / ε²).

    Args:
        d: dimension of the vectors, any.
        m: length of every sketch, not less than the degree. Powers of two are best.
        degree: the highest power, 1 or more.
        key: of `jax.random`.
        dtype: of the signs; `None`: JAX's default.

    Raises:
        ValueError: d, m or degree is not positive, or m is less than the degree.
        TypeError: d, m or degree is not an integer; dtype is not real and floating.

    Cost: for one power or all, `degree` transforms of length d and fewer than `3/2 degree` of
    length m, see `SRHT`. Memory: as many signs and rows.

    Source: Ahle, Kapralov, Knudsen, Pagh, Velingkar, Woodruff and Zandieh 2020, "Oblivious
    sketching of high-degree polynomial kernels" (arXiv 1909.01410).

    Example:
        >>> from ntk_sketch.sketches import PolynomialSketch
        >>> import jax
        >>> sketch = PolynomialSketch(8, 4, degree=2, key=jax.random.key(0))
        >>> sketch(jax.numpy.ones((3, 8))).shape
        (3, 4)
    """

    d: int = eqx.field(static=True)
    degree: int = eqx.field(static=True)
    tree: PowerTree

    def __init__(self, d: int, m: int, degree: int, *, key: PRNGKey, dtype=None):
        self.d, self.m = checked_integer(d, "d"), checked_integer(m, "m")
        self.degree = checked_integer(degree, "degree")
        self.tree = PowerTree(self.m, self.degree, key=key, dtype=dtype, d=self.d)

    def __call__(self, x: Inputs) -> Float[Array, "*n m"]:
        """The sketch (..., m) of `x^{⊗degree}` for vectors x (..., d), the last of `powers`.

        Raises:
            ValueError: the last axis is not d long.
            TypeError: x is not an array of real floating point numbers.
        """
        x = checked_vectors(x, self.d)
        return tree_powers(self.tree, x[..., None, :], (self.degree,))[..., 0, :]

    def powers(self, x: Inputs) -> Float[Array, "*n powers m"]:
        """Sketches (..., degree + 1, m) of all powers `x^{⊗0}`, ..., `x^{⊗degree}`.

        Use this for a power series: all powers cost as much as the highest. Power 0 is a constant
        vector of norm 1.

        Raises:
            ValueError, TypeError: as a call.

        Example:
            >>> from ntk_sketch.sketches import PolynomialSketch
            >>> import jax
            >>> sketch = PolynomialSketch(8, 4, degree=2, key=jax.random.key(0))
            >>> sketch.powers(jax.numpy.ones((3, 8))).shape
            (3, 3, 4)
        """
        x = checked_vectors(x, self.d)
        return tree_powers(self.tree, x[..., None, :], tuple(range(self.degree + 1)))
