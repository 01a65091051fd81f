"""Exact features: every position of the sample is a landmark."""

import numpy as np

from .._typing import PRNGKey
from ..activations import DualActivation
from ..features._hidden import HiddenFeatures
from ..numerics._host_random import generator
from ._expansion import LandmarkExpansion, expansion
from ._landmarks import HELD_OUT, check_values, landmarks_at
from ._method import Method
from ._products import ProductLandmarks, product_landmarks


class Exact(Method):
    """Features that reproduce the kernel on the sample to rounding: every position is a landmark.

    Use this for tests and small inputs. Everywhere else use `Nystroem`.

    With φ and ψ the NNGP and NTK features of a position (patches and bias included), and `Z` the P
    unmasked positions of the sample,

        φ' = k_σ(φ, Z) k_σ(Z, Z)^{-1/2},
        ψ' = [k_σ'(φ, Z) ⊙ <ψ, Z_ψ>] (k_σ'(Z, Z) ⊙ <Z_ψ, Z_ψ>)^{-1/2},

    with exact variances in both kernels and roots of pseudo-inverses. Away from the sample this is
    the Nyström approximation with P landmarks.

    Cost: O(P³) to fit and O(n P² |space|) to apply at every nonlinearity, O(P²) memory.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
        >>> x = np.random.default_rng(0).normal(size=(10, 3)).astype("float32")
        >>> features = ns.feature_map(model, x, ns.Exact(), key=jax.random.key(0))
        >>> close, exact = features.kernel_fn(x, None, "ntk"), model[2](x, None, "ntk")
        >>> bool(abs(close - exact).max() < 1e-4)
        True
    """

    uses_function = "never"

    @property
    def looks_at_data(self) -> bool:
        return True

    def expand(
        self, dual: DualActivation, features: HiddenFeatures, *, key: PRNGKey
    ) -> LandmarkExpansion:
        check_values("Exact", dual.name, features, key)
        index, seen = _all_and_some(features, key)
        return expansion(landmarks_at(dual, features, index, seen), dual).folded(features)

    def expand_product(
        self, name: str, branches: list[HiddenFeatures], *, key: PRNGKey
    ) -> ProductLandmarks:
        check_values("Exact", name, branches, key)
        return product_landmarks(name, branches, *_all_and_some(branches[0], key))


def _all_and_some(features: HiddenFeatures, key: PRNGKey):
    """Indices (example, *position) of all unmasked positions, and of some to measure rounding."""
    shape = features.nngp[0].shape[0], *features.nngp_vectors().space
    index = np.nonzero(
        np.ones(shape, bool) if features.mask is None else ~np.asarray(features.mask)
    )
    some = generator(key).permutation(len(index[0]))[:HELD_OUT]
    return index, tuple(i[some] for i in index)
