"""`FeatureModule`: a feature map as a module of Flax."""

from typing import Any

import equinox as eqx
import jax
from flax import nnx

from ..._arguments import checked_choice
from ..._typing import Array, Inputs


class Drawn(nnx.Variable):
    """Variables that were drawn or fitted with a map and are not trained."""


class FeatureModule(nnx.Module):
    """Features of an infinitely wide network as a layer of a Flax model.

    Use this before a head that optax trains with a loss that `ntk_sketch.ridge` does not have, such
    as a softmax. With `trainable` it is the initialisation of a network whose landmarks, roots and
    hyperparameters are trained too. In linen use `flax.nnx.bridge.to_linen(FeatureModule,
    feature_map)`.

    Each array of the map is one variable: a `Drawn`, which `nnx.grad` and an optimizer with
    `wrt=nnx.Param` ignore, or an `nnx.Param`. Checkpoints, `nnx.jit`, `nnx.split` and `nnx.state`
    treat them as those of any module.

    Args:
        feature_map: a map of `ntk_sketch.feature_map`, or any pytree `z = feature_map(x)` with
            `z.ntk`.
        get: which features the module returns, "ntk" or "nngp".
        trainable: make floating point arrays `nnx.Param`.
        rngs: not used; the bridge to linen passes it.

    Raises:
        ValueError: `get` is neither "ntk" nor "nngp".

    Cost: that of the map. Gradients with respect to its parameters cost about three times as much.

    Example: multinomial regression on features, by optax.

        >>> import jax
        >>> import numpy as np
        >>> import optax
        >>> from flax import nnx
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> from ntk_sketch.interop.flax import FeatureModule
        >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
        >>> labels = (x[:, 0] * x[:, 1] > 0).astype(int)
        >>> net = stax.serial(stax.Dense(1, b_std=0.3), stax.Relu(), stax.Dense(1))
        >>> feature_map = ns.feature_map(net, x, ns.Nystroem(32), key=jax.random.key(0))
        >>> features = feature_map.n_features["ntk"]
        >>> model = nnx.Sequential(
        ...     FeatureModule(feature_map), nnx.Linear(features, 2, rngs=nnx.Rngs(0)))
        >>> optimizer = nnx.Optimizer(model, optax.sgd(1.0, momentum=0.9), wrt=nnx.Param)
        >>> @nnx.jit
        ... def step(model, optimizer):
        ...     def loss(model):
        ...         logits = model(x)
        ...         return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        ...     optimizer.update(model, nnx.grad(loss)(model))
        >>> for _ in range(100):
        ...     step(model, optimizer)
        >>> bool((model(x).argmax(1) == labels).mean() > 0.95)
        True
    """

    def __init__(
        self,
        feature_map: Any,
        get: str = "ntk",
        trainable: bool = False,
        *,
        rngs: Any = None,
    ):
        del rngs
        self.get = checked_choice(get, "get", ("ntk", "nngp"))
        leaves, tree = jax.tree.flatten(feature_map)
        self.rest = _Rest(tree, tuple(None if eqx.is_array(leaf) else leaf for leaf in leaves))
        for number, leaf in enumerate(leaves):
            if eqx.is_array(leaf):
                kind = nnx.Param if trainable and eqx.is_inexact_array(leaf) else Drawn
                setattr(self, _name(number), kind(leaf))

    def __call__(self, x: Inputs) -> Array:
        """Features (n, p) of a batch."""
        return getattr(self.feature_map(x), self.get)

    @property
    def feature_map(self) -> Any:
        """The map with the current values of the arrays."""
        leaves = [
            getattr(self, _name(number))[...] if leaf is None else leaf
            for number, leaf in enumerate(self.rest.leaves)
        ]
        return jax.tree.unflatten(self.rest.tree, leaves)


class _Rest:
    """The parts of a map that are not arrays, hashable as `nnx.jit` requires."""

    def __init__(self, tree: Any, leaves: tuple[Any, ...]):
        self.tree, self.leaves = tree, leaves

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rest) and (self.tree, self.leaves) == (other.tree, other.leaves)

    def __hash__(self) -> int:
        return hash((self.tree, self.leaves))


def _name(number: int) -> str:
    return f"array_{number}"
