"""`FeatureMap`: from inputs to features."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp

from .._arguments import checked_inputs
from .._typing import Array, Inputs, Shape
from ..features._features import Features
from ..features._hidden import joined
from ..identity._example_keys import is_among
from ..identity._fingerprint import Fingerprint, fingerprint
from ..identity._specification import Specification
from ..identity._written import read, written
from ..methods import Method
from ..numerics._cost import Cost, product_cost
from ._batches import batch_within, usual_budget
from ._checks import (
    checked_call_arguments,
)
from ._diagonals import exact_diagonals
from ._ends import output
from ._kernel import kernel_of_features


class FeatureMap(eqx.Module):
    """Features of an infinitely wide network; made by `ntk_sketch.feature_map`.

    A pytree: an argument of functions under `jit`, `vmap` and `grad`. Its own call is compiled,
    once for every batch shape, and needs no `jit`; `ntk_sketch.streaming.stream` pads the last
    batch.

    It can be compared (`equinox.tree_equal`), copied and pickled if the functions of the model can.

    Attributes:
        transform: the drawn parameters, layer by layer.
        model: what the model was made from.
        method: how nonlinearities are expanded.
        input_shape: shape of one example.
        get: the kernels that were asked for.
        call_arguments: names of NT's call-time arguments that layers of the model take.
        dtype: what features are computed in, or in that of the inputs if it has more digits: the
            dtype of the example inputs, float32 at least.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
        >>> shape = jax.ShapeDtypeStruct((1, 3), "float32")
        >>> features = ns.feature_map(model, shape, ns.RandomFeatures(8), key=jax.random.key(0))
        >>> features.n_features
        {'nngp': 8, 'ntk': 16}
        >>> x = np.eye(3, dtype="float32")
        >>> features.kernel_fn(x, None, "ntk").shape
        (3, 3)
    """

    transform: Any
    model: Specification
    method: Method
    _input_offsets: tuple[tuple[int, ...], ...] | None = eqx.field(static=True)
    input_shape: tuple[int, ...] = eqx.field(static=True)
    get: tuple[str, ...] = eqx.field(static=True)
    call_arguments: frozenset[str] = eqx.field(static=True)
    dtype: str = eqx.field(static=True)
    _landmark_keys: Array | None = None

    def __call__(self, x: Inputs, **kwargs) -> Features:
        """Features of a batch.

        Args:
            x: floating point inputs (n, *input_shape), or what has `__array__`. Values are not
                looked at: rows with NaN, or so large that the map overflows their dtype, have
                features that are NaN or infinite. `ntk_sketch.streaming.stream` refuses both.
            **kwargs: NT's call-time arguments, as given to `ntk_sketch.feature_map`.

        Returns:
            `Features` with `nngp` and `ntk`: one array (n, *space, p) each, or `None` if it is not
            in `get`.

        Raises:
            ValueError: the rank or shape of `x` is not that of the examples the map was made for,
                or the batch is empty.
            TypeError: integer inputs.
        """
        x = checked_inputs(x, shape=self.input_shape, values=False)
        kwargs = checked_call_arguments(kwargs, self.call_arguments)
        static = (self._input_offsets, self.get, self.dtype)
        return _features(self.transform, jnp.asarray(x), *static, kwargs)

    @property
    def exact_kernel_fn(self) -> Callable:
        """The model's exact `kernel_fn`, that of Neural Tangents."""
        return self.model.build()[2]

    @property
    def specification(self) -> dict:
        """Everything but the arrays, as JSON can hold it: layers, method, shapes and their order.

        `FeatureMap.from_specification(specification, arrays)` makes the same map again, of the same
        version of this package. Functions and classes of users are written by import path.

        Raises:
            TypeError: a function or class that cannot be imported, such as a lambda; a note says
                which layer it belongs to.
        """
        return written(self, [])

    @property
    def arrays(self) -> tuple:
        """The arrays that `specification` refers to, in its order."""
        arrays: list = []
        written(self, arrays)
        return tuple(arrays)

    @classmethod
    def from_specification(cls, specification: dict, arrays: Sequence) -> "FeatureMap":
        """The map that `specification` and `arrays` are of.

        Raises:
            ImportError: a function or class of the specification is not there.
        """
        return read(specification, arrays)

    @property
    def fingerprint(self) -> Fingerprint:
        """What tells this map from others: digests of its model, method and arrays.

        Cost: every array is read once on the host.
        """
        settings = (self.method, self.input_shape, self.get, self.dtype)
        return fingerprint(self.model, settings, self.transform)

    @property
    def n_features(self) -> dict[str, int]:
        """The number of features p of each kernel, such as `{"nngp": 64, "ntk": 128}`."""
        one = jax.ShapeDtypeStruct((1, *self.input_shape), self.dtype)
        features = eqx.filter_eval_shape(self._program, self.transform, one)
        return {name: getattr(features, name).shape[-1] for name in self.get}

    def _program(self, transform, x: Array) -> Features:
        """The features as a function of the drawn parameters, to be looked at, not run."""
        static = (self._input_offsets, self.get, self.dtype)
        return _features.__wrapped__(transform, x, *static, {})

    def __hash__(self):
        raise TypeError(
            "a FeatureMap holds arrays and has no hash. In place of jax.jit(feature_map) use"
            " equinox.filter_jit(feature_map), or make the map an argument of the function under"
            " jit; its own call is compiled already."
        )

    @property
    def kernel_fn(self) -> Callable:
        """The approximate kernel `kernel_fn(x1, x2=None, get=None, **kwargs)`, in NT's calling
        convention.

        A plain function, hashable where a method of a pytree is not, so that `nt.batch` and
        `nt.predict` take it.

        Args:
            x1: inputs (n1, *input_shape).
            x2: inputs (n2, *input_shape); `None` means `x1`.
            get: `"nngp"`, `"ntk"` or a sequence of them; `None` means all that the map has.
            exact_diagonal: with `x2=None`, kernels of an example with itself are the exact ones.
                Features miss a part of them, `k(x, x) - |z(x)|²`, which is most of what a
                predictive variance is made of: without it `nt.predict` gives variances that are far
                too small. Off the diagonal the features' kernel stays. A training matrix with it is
                that of another regression, with the missing part as noise (Snelson and Ghahramani
                2005): leave it out there, as below.
            **kwargs: NT's call-time arguments.

        Returns:
            An array (n1, n2) for a string, else a namedtuple of arrays. Cost: `2 n1 n2 p` FLOPs
            beside the features.

        Example: predictive variances by `nt.predict`, mean and weights those of the features.

            kernel_fn = feature_map.kernel_fn

            def with_diagonal(x1, x2=None, get=None):
                test = x2 is None and x1 is not x_train
                return kernel_fn(x1, x2, get, exact_diagonal=test)

            predict = nt.predict.gradient_descent_mse_ensemble(
                with_diagonal, x_train, y_train, diag_reg=1e-3)
            mean, covariance = predict(x_test=x_test, get="ntk", compute_cov=True)
        """

        def kernel_fn(
            x1: Inputs,
            x2: Inputs | None = None,
            get: str | Sequence[str] | None = None,
            exact_diagonal: bool = False,
            **kwargs,
        ):
            return kernel_of_features(self, x1, x2, get, exact_diagonal, **kwargs)

        return kernel_fn

    def diagonals(self, x: Inputs, **kwargs) -> tuple[Array, Array | None]:
        """The exact kernels `k(x, x)` of each example with itself, (n,) each: NNGP, and NTK or
        `None`.

        By their own recursion, in the time of a few features; all pairs of positions where the
        model pools them. With `Dropout` those of two independent passes.
        """
        x = checked_inputs(x, shape=self.input_shape, values=False)
        kwargs = checked_call_arguments(kwargs, self.call_arguments)
        return exact_diagonals(self.model, jnp.asarray(x), self.get, self.dtype, **kwargs)

    def is_landmark(self, x: Inputs) -> np.ndarray:
        """Which examples of x the last nonlinearity has landmarks from: booleans (n,).

        A regression fits those better than new examples, since they have features of their own;
        selection of a regulariser leaves them out. They are recognised by their content, in any
        order, at the cost of one pass over x on the host.

        Args:
            x: inputs (n, *input_shape).
        """
        x = checked_inputs(x, shape=self.input_shape, values=False)
        if self._landmark_keys is None:
            return np.zeros(len(x), bool)
        return is_among(x, self._landmark_keys)

    def batch_size(self, memory_bytes: int | None = None, dtype=None) -> int:
        """The largest power of two of examples (4,096 at most) whose features need about
        `memory_bytes` to compute.

        The estimate adds up all intermediate arrays while they are used. It is on the safe side,
        since XLA never forms what it fuses. It is made once for each structure of a map and dtype.

        Args:
            memory_bytes: the budget. `None`: 2 GiB; on a CPU 16 MiB, so that batches stay in the
                caches, or four times the map's own arrays if that is more, and 128 MiB at most.
            dtype: of the inputs; `None`: JAX's default.
        """
        if memory_bytes is None:
            memory_bytes = usual_budget(self.transform)
        return batch_within(memory_bytes, self, jnp.zeros((), dtype).dtype)

    def cost(self, shape: Shape, dtype=None) -> Cost:
        """FLOPs and bytes of the features of one batch: a namedtuple `(flops, bytes)` of integers.

        Matrix products and convolutions are counted, where a map spends most of its time: the
        projections on random directions or landmarks and the products with inverse roots. A sum of
        d products is 2 d FLOPs; a convolution sums `taps · input channels` of them for each output,
        those in the padding included. Bytes are those of operands and results of these products,
        each read or written once.

        Not counted: elementwise work (the nonlinearities, normalisation), pools, the sums that
        carry the exact variances (unless they are matrix products themselves, as in the quadrature
        of `ElementwiseNumerical`), and making the map.

        Args:
            shape: of the batch, (n, *input_shape).
            dtype: of the inputs; `None`: JAX's default.

        Raises:
            ValueError, TypeError: as a call with such inputs.
        """
        if not isinstance(shape, Sequence):
            raise TypeError(f"shape is that of a batch, such as x.shape; got {shape!r}.")
        x = jax.ShapeDtypeStruct(tuple(shape), jnp.zeros((), dtype).dtype)
        checked_inputs(x, shape=self.input_shape)
        return product_cost(lambda x: self._program(self.transform, x), x)


@eqx.filter_jit
def _features(
    transform, x: Array, offsets, get: tuple[str, ...], dtype: str, kwargs: dict
) -> Features:
    features = output(transform, x, offsets, get, dtype, kwargs)
    nngp = joined(features.nngp, features.nngp[0])
    return Features(
        nngp=nngp if "nngp" in get else None,
        ntk=joined(features.ntk, features.nngp[0]) if "ntk" in get else None,
    )
