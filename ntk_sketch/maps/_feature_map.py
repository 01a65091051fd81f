"""`FeatureMap`: from inputs to features."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax

from .._arguments import checked_inputs
from .._typing import Array, Inputs, PerKernel, Shape
from ..features._features import Features
from ..features._hidden import joined
from ..numerics._compiling import explained
from ..numerics._cost import Cost, product_cost
from ..numerics._precision import canonical, on_device
from ._batches import batch_within, usual_budget
from ._checks import checked_call_arguments
from ._diagonals import exact_diagonals
from ._ends import output
from ._kernel import kernel_of_features
from ._masks import check_same
from ._parts import Parts
from ._views import Views, check_averaged, exact_kernel_of_views, in_floats


class FeatureMap(Parts):
    """Computes features of inputs: `z = feature_map(x)`, with `z.ntk @ z.ntk.T ≈ Θ(x, x)`.

    Made by `ntk_sketch.feature_map`. Use this when you want the features themselves; `ridge` and
    `predict` take the map and call it batch by batch.

    A map is a pytree, and may be an argument of functions under `jit`, `vmap` and `grad`. Its own
    call is compiled once for every batch shape and needs no `jit`; `ntk_sketch.streaming.stream`
    pads the last batch to keep one shape. Maps can be compared (`equinox.tree_equal`), copied and
    pickled if the functions of the model can.

    Attributes:
        transform: the drawn or fitted parameters of every layer.
        views: what is applied to examples first: preprocessing, and transforms to average over.
        model: how the model was made.
        method: how nonlinearities become features.
        input_shape: shape of one example.
        get: the kernels that the map has features of.
        call_arguments: names of NT's call-time arguments that layers of the model take.
        dtype: the dtype of the example inputs, float32 at least. Features are computed in it, or in
            the dtype of the inputs if that is wider.

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

    def __call__(self, x: Inputs, **kwargs) -> Features:
        """Computes the features of a batch.

        Args:
            x: floating point inputs (n, *input_shape), or an object with `__array__`. Values are
                not checked: rows with NaN, or so large that they overflow, get features that are
                NaN or infinite. `ntk_sketch.streaming.stream` refuses both.
            **kwargs: NT's call-time arguments, such as `pattern`, the graphs of these examples.
                `mask_constant` is known to the map and may be left out.

        Returns:
            `Features` with `nngp` and `ntk`: one array (n, *space, p) each, or `None` if it is not
            in `get`.

        Raises:
            ValueError: `x` does not have the shape (n, *input_shape), or the batch is empty.
            TypeError: integer inputs.
        """
        x = checked_inputs(x, shape=self.input_shape, values=False)
        kwargs = self._call_arguments(kwargs)
        static = (self._input_offsets, self.get, self.dtype)
        with explained():
            return _features(
                self.transform, self.views, on_device(x), *static, kwargs, self._mask_constant
            )

    def _call_arguments(self, kwargs: dict) -> dict:
        check_same(kwargs.pop("mask_constant", None), self._mask_constant)
        return checked_call_arguments(kwargs, self.call_arguments)

    @property
    def exact_kernel_fn(self) -> Callable:
        """The exact kernel that the features approximate: the `kernel_fn` of Neural Tangents.

        It applies the map's preprocessing. If the map is averaged over transforms, it is the mean
        over all pairs of transformed examples.
        """
        kernel_fn = self.model.build()[2]
        if self._mask_constant is not None:
            kernel_fn = functools.partial(kernel_fn, mask_constant=self.mask_constant)
        plain = self.views.preprocess is None and not self.views.transforms
        return kernel_fn if plain else exact_kernel_of_views(kernel_fn, self.views)

    def averaged(self, transforms: Callable | Sequence[Callable]) -> "FeatureMap":
        """The map whose features are the mean over an example and its transforms.

        Use this when the target does not change under the transforms, as for mirror images of
        photographs, but not of letters. It replaces data augmentation: n examples, not `|T| n`.

        With `T` the identity and the transforms, `z(x) = mean of z(t(x))` over `t` in `T` is the
        feature map of the kernel `mean of k(t(x), t'(x'))` over pairs. If `T` is a group, such as
        the identity and mirroring, predictions are invariant under it. They are then those of a
        regression on all transforms of all examples, at an absolute regulariser `|T|` times as
        large.

        Args:
            transforms: functions of a batch of examples (n, *input_shape) that keep its shape. The
                identity is always included and need not be given.

        Cost: `1 + len(transforms)` times that of the map, except that after a global pool the last
        root is applied once for each example.

        Raises:
            ValueError: a transform changes the shape, or the map is already averaged.
            NotImplementedError: layers of the model take call-time arguments.

        Example:
            >>> import jax
            >>> import numpy as np
            >>> import ntk_sketch as ns
            >>> from ntk_sketch import stax
            >>> model = stax.serial(stax.Conv(1, (3, 3)), stax.Relu(), stax.Flatten())
            >>> x = np.random.default_rng(0).normal(size=(9, 4, 4, 1)).astype("float32")
            >>> features = ns.feature_map(model, x, ns.Nystroem(8), key=jax.random.key(0))
            >>> both = features.averaged(ns.maps.mirrored)
            >>> mirror_image = x[:, :, ::-1]
            >>> bool(np.allclose(both(x).ntk, both(mirror_image).ntk, atol=1e-5))
            True
        """
        check_averaged(self.call_arguments)
        views = self.views.with_transforms(transforms, self.input_shape, canonical(self.dtype))
        return dataclasses.replace(self, views=views)

    @property
    def n_features(self) -> dict[str, int]:
        """The number of features p of each kernel, such as `{"nngp": 64, "ntk": 128}`."""
        one = jax.ShapeDtypeStruct((1, *self.input_shape), canonical(self.dtype))
        features = eqx.filter_eval_shape(self._program, self.transform, one)
        return {name: getattr(features, name).shape[-1] for name in self.get}

    def _program(self, transform, x: Array) -> Features:
        """The features as a function to trace, not to run: call-time arguments are `None`."""
        static = (self._input_offsets, self.get, self.dtype)
        none = dict.fromkeys(self.call_arguments)
        return _features.__wrapped__(transform, self.views, x, *static, none, self._mask_constant)

    @property
    def kernel_fn(self) -> Callable:
        """The approximate kernel `kernel_fn(x1, x2=None, get=None, **kwargs)`.

        Use this when you pass the map to code of Neural Tangents, such as `nt.batch` and
        `nt.predict`. It follows NT's calling convention and is a plain, hashable function.

        Args:
            x1: inputs (n1, *input_shape).
            x2: inputs (n2, *input_shape); `None` means `x1`.
            get: `"nngp"`, `"ntk"` or a sequence of them; `None` means all that the map has.
            exact_diagonal: with `x2=None`, replace the diagonal by the exact one. Set it for test
                inputs whose predictive variances you need: the part that features miss, `k(x, x) -
                |z(x)|²`, is most of such a variance. Leave it out for the training matrix: there it
                defines another regression, in which the missing part is noise (Snelson and
                Ghahramani 2005).
            **kwargs: NT's call-time arguments, such as `pattern=(pattern1, pattern2)`.

        Returns:
            An array (n1, n2) if `get` is a string, else a namedtuple of arrays.

        Cost: `2 n1 n2 p` FLOPs besides the features.

        Example: predictive variances by `nt.predict`. Mean and weights are those of the features.
        `ntk_sketch.predict` gives the same at a cost linear in examples.

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

    def diagonals(self, x: Inputs, **kwargs) -> PerKernel:
        """The exact diagonals `.nngp` and `.ntk` (`None` without it) of both kernels, (n,) each.

        Use this when you need prior variances. If the output of the model has positions, they are
        (n, *space), one for each position.

        They are computed layer by layer, in about the time of a few features; where the model pools
        positions, from covariances of all their pairs. With `Dropout` they are those of two
        independent passes.
        """
        x = checked_inputs(x, shape=self.input_shape, values=False)
        kwargs = self._call_arguments(kwargs)
        x = self.views.single(in_floats(x))
        return exact_diagonals(
            self.model, x, self.get, self.dtype, mask_constant=self._mask_constant, **kwargs
        )

    def batch_size(self, memory_bytes: int | None = None, dtype=None) -> int:
        """The largest power of two of examples (4,096 at most) whose features take about
        `memory_bytes` to compute.

        The estimate is the largest sum of intermediate arrays that are live at one time. It is on
        the safe side, since XLA does not form the arrays that it fuses.

        Args:
            memory_bytes: the budget. `None`: 2 GiB. On a CPU: four times the map's own arrays, but
                at least 16 MiB, so that batches stay in the caches, and at most 128 MiB.
            dtype: of the inputs; `None`: JAX's default.
        """
        if memory_bytes is None:
            memory_bytes = usual_budget(self.transform)
        return batch_within(memory_bytes, self, canonical(dtype))

    def cost(self, shape: Shape, dtype=None) -> Cost:
        """FLOPs and bytes of the features of one batch: a namedtuple `(flops, bytes)` of integers.

        Use this when you compare widths or methods before you run them.

        Only matrix products and convolutions are counted, in which a map spends most of its time:
        the projections on random directions or landmarks, and the products with inverse roots. An
        inner product of length d is 2 d FLOPs. A convolution has one of length `taps · input
        channels` for each output, padding included. Bytes are those of operands and results of
        these products, each read or written once.

        Not counted: elementwise work (nonlinearities, normalisation), pools, the recursion of the
        exact variances (unless it has matrix products, as in the quadrature of
        `ElementwiseNumerical`), and making the map.

        Args:
            shape: of the batch, (n, *input_shape).
            dtype: of the inputs; `None`: JAX's default.

        Raises:
            ValueError, TypeError: as a call of the map with such inputs.
        """
        if not isinstance(shape, Sequence):
            raise TypeError(f"shape is that of a batch, such as x.shape; got {shape!r}.")
        x = jax.ShapeDtypeStruct(tuple(shape), canonical(dtype))
        checked_inputs(x, shape=self.input_shape)
        return product_cost(lambda x: self._program(self.transform, x), x)


@eqx.filter_jit
def _features(
    transform,
    views: Views,
    x: Array,
    offsets,
    get: tuple[str, ...],
    dtype: str,
    kwargs: dict,
    mask_constant: str | None,
) -> Features:
    features = output(transform, views, x, offsets, get, dtype, kwargs, mask_constant)
    nngp = joined(features.nngp, features.nngp[0])
    return Features(
        nngp=nngp if "nngp" in get else None,
        ntk=joined(features.ntk, features.nngp[0]) if "ntk" in get else None,
    )
