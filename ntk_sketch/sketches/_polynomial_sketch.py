"""Sketches of tensor powers of any degree: the tree of Ahle et al."""

import equinox as eqx
from jaxtyping import Float

from .._arguments import checked_integer
from .._typing import Array, Inputs, PRNGKey
from ._power_tree import PowerTree, tree_powers
from ._sketch import Sketch, checked_vectors


class PolynomialSketch(Sketch):
    r"""Unbiased sketches of `x^{⊗l}`, l = 0..degree, of length m, real, for any degree:

        E <S x^{⊗l}, S x'^{⊗l}> = <x, x'>^l.

    A `PowerTree` whose leaves are x itself: the transforms P H D of the lowest nodes act on x
    directly, be it longer or shorter than m, which adds no noise of a separate sketch. Degree 1 is
    exact for d <= m (x with zeros; else its `SRHT`). The variance is that of the tree,

        Var <S x^{⊗l}, S x'^{⊗l}> <= ((1 + g)^{l-1} - 1) ‖x‖^{2l} ‖x'‖^{2l},    g = 4 / (m - 1)

    for m a power of two and d <= m; else with `g = 8 / (m - 1)` and exponent l. So m = O(l / ε²)
    for an error ε, where sketches of products of l factors need a length exponential in l.

    Args:
        d: dimension of the vectors, any.
        m: length of every sketch, not less than the degree; powers of two are best.
        degree: the highest power, 1 or more.
        key: of `jax.random`.
        dtype: of the signs; `None`: JAX's default.

    Raises:
        ValueError: d, m or degree is not positive, or m is less than the degree.
        TypeError: not integers; dtype is not real and floating.

    Cost: of one power or of all: `degree` transforms of length d and fewer than `3/2 degree` of
    length m, see `SRHT`: linear in the degree. Memory: as many signs and rows.

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
        """The sketch of `x^{⊗degree}`, (..., m), of vectors x (..., d): the last of `powers`.

        Raises:
            ValueError: the last axis is not d long.
            TypeError: x is not an array of real floating point numbers.
        """
        x = checked_vectors(x, self.d)
        return tree_powers(self.tree, x[..., None, :], (self.degree,))[..., 0, :]

    def powers(self, x: Inputs) -> Float[Array, "*n powers m"]:
        """Sketches of `x^{⊗0}` (constant, of norm 1), ..., `x^{⊗degree}`: (..., degree + 1, m).

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
