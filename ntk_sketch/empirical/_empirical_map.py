"""`EmpiricalFeatureMap`: maps examples to features of a finite network's kernels."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
from jax import numpy as jnp

from .._arguments import checked_inputs
from .._typing import Array, Inputs, PerKernel, Shape
from ..features import Features
from ..identity._fingerprint import Fingerprint, fingerprint
from ..identity._structure import once_per_structure
from ..maps._batches import usual_budget
from ..numerics._cost import Cost, product_cost
from ..numerics._precision import canonical, promoted
from ..storage._saved import save
from ._at_once import pieces_within, shapes
from ._axes import Axes
from ._choosing import Way
from ._kernel import exact_kernel_fn, kernel_of_features, mean_over_outputs, squared_norm
from ._network import Network
from ._reverse import of_gradients

_LARGEST_BATCH = 4096


class EmpiricalFeatureMap(eqx.Module):
    """Computes features of a finite network's kernels; made by `empirical_feature_map`.

    Use this like a `FeatureMap`: with `ntk_sketch.ridge`, `ntk_sketch.predict` and
    `ntk_sketch.streaming`, or by calling it.

    It is a pytree whose leaves are the parameters and the drawn numbers, and may be an argument of
    functions under `jit`, `vmap` and `grad`. Its own call is compiled once for every batch shape.
    `equinox.tree_at(lambda m: m.params, fm, params)` is the same sketch at other parameters, for
    example at another time of training.

    Attributes:
        network: `apply_fn` and its keyword arguments.
        params: the parameters at which the kernel is taken.
        way: the drawn sketch, of one of the two modes.
        axes: how the kernel treats the axes of the outputs.
        input_shape: shape of one example.
        get: the kernels that the map has features of.
        dtype: of the example inputs.
        memory_bytes: the budget of one call, or None.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> init_fn, apply_fn, _ = stax.serial(stax.Dense(32), stax.Erf(), stax.Dense(2))
        >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
        >>> _, params = init_fn(jax.random.key(0), x.shape)
        >>> features = ns.empirical.empirical_feature_map(
        ...     apply_fn, params, 64, key=jax.random.key(1), x=x)
        >>> features.n_features
        {'nngp': 2, 'ntk': 128}
        >>> ns.ridge(features, x, np.sin(x), diag_reg=1e-3).predict(x).shape
        (50, 3)
    """

    network: Network
    params: Any
    way: Way
    axes: Axes
    input_shape: tuple[int, ...] = eqx.field(static=True)
    get: tuple[str, ...] = eqx.field(static=True)
    dtype: str = eqx.field(static=True)
    memory_bytes: int | None = eqx.field(static=True)

    def __call__(self, x: Inputs) -> Features:
        """Computes the features of a batch.

        Args:
            x: floating point inputs (n, *input_shape), or an object with `__array__`. Values are
                not checked.

        Returns:
            `Features` with `nngp` and `ntk`: one array (n, *kept, p) each, or `None` if it is not
            in `get`; `kept` are the axes of the outputs that are not traced.

        Raises:
            ValueError: `x` does not have the shape (n, *input_shape), or the batch is empty.
            TypeError: integer inputs.
        """
        x = checked_inputs(x, shape=self.input_shape, values=False)
        return _features(self, jnp.asarray(x))

    @property
    def mode(self) -> str:
        """The mode of differentiation: 'forward' or 'reverse'."""
        return self.way.mode

    @property
    def n_features(self) -> dict[str, int]:
        """The number of features p of each kernel, such as `{"nngp": 10, "ntk": 40960}`."""
        of = {"nngp": self.axes.traced, "ntk": self.axes.traced * self.way.rows}
        return {name: of[name] for name in self.get}

    @property
    def kernel_fn(self) -> Callable:
        """The approximate kernel `kernel_fn(x1, x2=None, get=None)`.

        Use this when you pass the map to code of Neural Tangents, such as `nt.batch` and
        `nt.predict`. It returns an array if `get` is a string, else a namedtuple of arrays. Axes
        are those of `nt.empirical_kernel_fn`: (n1, n2) if all axes of the outputs are traced; else
        also each other axis twice, or once if it is in `diagonal_axes`.
        """

        def kernel_fn(x1: Inputs, x2: Inputs | None = None, get: str | Sequence[str] | None = None):
            return kernel_of_features(self, x1, x2, get)

        return kernel_fn

    @property
    def exact_kernel_fn(self) -> Callable:
        """The exact kernel that the features approximate: `kernel_fn(x1, x2=None, get=None)`.

        It is `nt.empirical_kernel_fn` of this network, and holds the Jacobians of both batches.
        """
        return exact_kernel_fn(self)

    def diagonals(self, x: Inputs) -> PerKernel:
        """The exact diagonals `.nngp` and `.ntk` of both kernels, (n,) each.

        Cost: one gradient for every output of every example.

        Raises:
            ValueError: some axes of the outputs are not traced.
        """
        x = checked_inputs(x, shape=self.input_shape, values=False)
        if self.axes.kept:
            raise ValueError(
                f"outputs (n, {', '.join(map(str, self.axes.shape))}) keep axes {self.axes.kept}"
                " that are not in trace_axes; needed: all axes of the outputs traced."
            )
        return _diagonals(self, jnp.asarray(x))

    def batch_size(self, memory_bytes: int | None = None, dtype=None) -> int:
        """The largest power of two of examples (4,096 at most) whose features fit in
        `memory_bytes`, together with one product per example in forward mode.

        Args:
            memory_bytes: the budget. None: that of the map, or else 2 GiB. On a CPU: four times the
                parameters, but at least 16 MiB and at most 128 MiB.
            dtype: of the inputs; None: JAX's default.
        """
        budget = self._budget() if memory_bytes is None else memory_bytes
        of_one = _bytes_of_example(self, str(canonical(dtype)))
        return 1 << (pieces_within(budget, of_one, _LARGEST_BATCH).bit_length() - 1)

    def cost(self, shape: Shape, dtype=None) -> Cost:
        """FLOPs and bytes of the features of one batch, as counted by `FeatureMap.cost`.

        Args:
            shape: of the batch, (n, *input_shape).
            dtype: of the inputs; None: JAX's default.
        """
        x = jax.ShapeDtypeStruct(tuple(shape), canonical(dtype))
        checked_inputs(x, shape=self.input_shape)
        return product_cost(lambda x: _features.__wrapped__(self, x), x)

    @property
    def fingerprint(self) -> Fingerprint:
        """Digests of the network's program, of the settings, and of parameters and drawn numbers.

        Use this to check that stored features or statistics belong to this map.

        Cost: the network is traced once, and every array is read once on the host.
        """
        one = jax.ShapeDtypeStruct(self.input_shape, jax.dtypes.canonicalize_dtype(self.dtype))
        program = jax.make_jaxpr(self.network)(self.params, one)
        text = re.sub(r"0x[0-9a-f]+", "", str(program.jaxpr))  # addresses of functions
        settings = (self.mode, self.way.rows, self.axes, self.input_shape, self.get)
        arrays = (jax.tree.leaves(self.params), jax.tree.leaves(self.way))
        return fingerprint((text, list(program.consts)), settings, arrays)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the map to a file, which `ntk_sketch.load` reads, as `FeatureMap.save` does.

        `apply_fn` is written as its import path and has to be a function at the top level of a
        module: for a network of `stax` one that calls it, `def apply_fn(params, x): return
        model[1](params, x)`. Parameters are dictionaries, lists, tuples, dataclasses and modules of
        equinox; of `flax.nnx` give `nnx.to_pure_dict(params)`.

        Args:
            path: of the file. Its folder must be there.

        Raises:
            TypeError: a function or class that cannot be imported, such as a lambda.
            OSError: the folder is not there, or the disk is full.

        Warns:
            RuntimeWarning: a function of the script that runs, which others do not have.
        """
        save(self, path, str(self.fingerprint))

    def _budget(self) -> int:
        return usual_budget(self.params) if self.memory_bytes is None else self.memory_bytes


@eqx.filter_jit
def _features(feature_map: EmpiricalFeatureMap, x: Array) -> Features:
    network, params, axes = feature_map.network, feature_map.params, feature_map.axes
    outputs = network.outputs(params, shapes(x, skip=1))
    dtype, ntk = promoted(outputs.dtype, jnp.float32), None
    if "ntk" in feature_map.get:
        way, budget = feature_map.way, feature_map._budget()
        products, outputs = way(network, params, x, dtype, budget)
        ntk = axes.features(products)
    else:
        outputs = network.batch(params, x)
    if "nngp" not in feature_map.get:
        return Features(nngp=None, ntk=ntk)
    return Features(nngp=axes.features(jnp.expand_dims(outputs.astype(dtype), -1)), ntk=ntk)


@eqx.filter_jit
def _diagonals(feature_map: EmpiricalFeatureMap, x: Array) -> PerKernel:
    network, params = feature_map.network, feature_map.params
    outputs = network.outputs(params, shapes(x, skip=1))
    dtype, budget = promoted(outputs.dtype, jnp.float32), feature_map._budget()
    norms, values = of_gradients(squared_norm, network, params, x, dtype, budget)
    return PerKernel(mean_over_outputs(values.astype(dtype) ** 2), mean_over_outputs(norms))


@once_per_structure
def _bytes_of_example(feature_map: Any, dtype: str) -> int:
    """Memory per example: its features (twice) and what the mode of differentiation needs."""
    one = jax.ShapeDtypeStruct((1, *feature_map.input_shape), dtype)
    network, params, way = feature_map.network, feature_map.params, feature_map.way
    outputs = network.outputs(params, shapes(one, skip=1))
    rows = way.rows if "ntk" in feature_map.get else 1
    features = 2 * outputs.size * rows * promoted(outputs.dtype, jnp.float32).itemsize
    return features + way.bytes_of_example(network, params, one)
