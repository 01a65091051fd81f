"""Random directions, orthogonal in groups."""

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Float

from .._typing import Array, PRNGKey
from ..numerics._compiling import fitting_jit

#: The largest number of columns made orthogonal to each other; the cost grows with it.
_MAX_GROUP = 1024


def orthogonal_directions(
    key: PRNGKey, d: int, m: int, dtype, *, chi_norms: bool
) -> Float[Array, "{d} {m}"]:
    """Random columns (d, m), uniform in direction and nearly orthogonal in groups.

    Their norms are independent norms of Gaussian vectors (`chi_norms`), or all `√d`. Either way
    `E[w wᵀ] = I`.

    Newton-Schulz steps `A ← A (3 - AᵀA) / 2` (Björck and Bowie 1971) bring a Gaussian matrix `A`
    near its polar factor. Every step commutes with rotations from the left, under which the
    distribution of `A` is invariant. The direction of each column is therefore exactly uniform; the
    number of steps decides only how orthogonal the columns are. Unlike a QR decomposition, the
    steps are matrix products: they run on matrix units, batch under `vmap` and need no LAPACK.

    Cost: `4 d m g` FLOPs a step, with groups of `g = min(d, m, 1024)` columns.
    """
    return _orthogonal_directions(key, d, m, dtype, chi_norms)


@fitting_jit
def _orthogonal_directions(key: PRNGKey, d: int, m: int, dtype, chi_norms: bool) -> Array:
    key_directions, key_norms = jax.random.split(key)
    columns = min(d, m, _MAX_GROUP)
    groups = -(-m // columns)
    a = jax.random.normal(key_directions, (groups, d, columns), dtype)
    # The largest singular value is now at most 1 (except with probability 1e-9); the steps converge
    # below √3.
    a = a / (d**0.5 + columns**0.5 + 3)

    def step(_, a):
        gram = jnp.einsum("gdi,gdj->gij", a, a, precision="highest")
        return 1.5 * a - 0.5 * jnp.einsum("gdi,gij->gdj", a, gram, precision="highest")

    # Singular values grow by up to 3/2 a step; those of tall matrices start near 1.
    a = jax.lax.fori_loop(0, 8 if 4 * columns <= d else 30, step, a)
    directions = jnp.moveaxis(a, 0, 1).reshape(d, groups * columns)[:, :m]
    directions = directions / jnp.linalg.norm(directions, axis=0, keepdims=True)
    if not chi_norms:
        return directions * d**0.5
    gaussian = jax.random.normal(key_norms, (d, m), dtype)
    return directions * jnp.linalg.norm(gaussian, axis=0, keepdims=True)


def host_orthogonal_directions(
    rng: np.random.Generator, d: int, m: int, *, chi_norms: bool
) -> Float[np.ndarray, "{d} {m}"]:
    """`orthogonal_directions` on the host, in float64, by QR decompositions: nothing to compile.

    Multiplied by the signs of R's diagonal, Q is uniform among matrices with orthonormal columns
    (Mezzadri 2007).
    """
    columns = min(d, m, _MAX_GROUP)
    q, r = np.linalg.qr(rng.standard_normal((-(-m // columns), d, columns)))
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]
    directions = np.moveaxis(q, 0, 1).reshape(d, -1)[:, :m]
    if not chi_norms:
        return directions * d**0.5
    return directions * np.sqrt(rng.chisquare(d, m))


def residual_directions(
    d: int, d_ntk: int | None, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Orthogonal directions `w` (d, count) with chi norms and `s` (d_ψ, count), `E[w wᵀ] = I`."""
    w = host_orthogonal_directions(rng, d, count, chi_norms=True)
    if d_ntk is None:
        return w, None
    return w, host_orthogonal_directions(rng, d_ntk, count, chi_norms=False)
