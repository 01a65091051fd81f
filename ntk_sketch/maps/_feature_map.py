"""`FeatureMap`: from inputs to features."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
from jax import numpy as jnp

from .._arguments import checked_inputs
from .._typing import Array, Inputs, Shape
from ..features._features import Features
from ..features._hidden import joined
from ..numerics._cost import Cost, product_cost
from ._batches import batch_within, usual_budget
from ._checks import checked_call_arguments
from ._diagonals import exact_diagonals
from ._ends import output
from ._kernel import kernel_of_features
from ._masks import check_same
from ._parts import Parts
from ._views import Views, check_averaged, exact_kernel_of_views, in_floats


class FeatureMap(Parts):
    """Features of an infinitely wide network; made by `ntk_sketch.feature_map`.

    A pytree: an argument of functions under `jit`, `vmap` and `grad`. Its own call is compiled,
    once for every batch shape, and needs no `jit`; `ntk_sketch.streaming.stream` pads the last
    batch.

    It can be compared (`equinox.tree_equal`), copied and pickled if the functions of the model can.

    Attributes:
        transform: the drawn parameters, layer by layer.
        views: what is done to examples before: preprocessing, and transforms to average over.
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

    def __call__(self, x: Inputs, **kwargs) -> Features:
        """Features of a batch.

        Args:
            x: floating point inputs (n, *input_shape), or what has `__array__`. Values are not
                looked at: rows with NaN, or so large that the map overflows their dtype, have
                features that are NaN or infinite. `ntk_sketch.streaming.stream` refuses both.
            **kwargs: NT's call-time arguments, as given to `ntk_sketch.feature_map`: `pattern`, the
                graphs of these examples. `mask_constant` is the map's and may be left out.

        Returns:
            `Features` with `nngp` and `ntk`: one array (n, *space, p) each, or `None` if it is not
            in `get`.

        Raises:
            ValueError: the rank or shape of `x` is not that of the examples the map was made for,
                or the batch is empty.
            TypeError: integer inputs.
        """
        x = checked_inputs(x, shape=self.input_shape, values=False)
        kwargs = self._call_arguments(kwargs)
        static = (self._input_offsets, self.get, self.dtype)
        return _features(
            self.transform, self.views, jnp.asarray(x), *static, kwargs, self._mask_constant
        )

    def _call_arguments(self, kwargs: dict) -> dict:
        check_same(kwargs.pop("mask_constant", None), self._mask_constant)
        return checked_call_arguments(kwargs, self.call_arguments)

    @property
    def exact_kernel_fn(self) -> Callable:
        """The exact kernel that the features approximate: the model's `kernel_fn`, of Neural
        Tangents; of preprocessed examples, and the mean over pairs of transforms, where the map has
        them.
        """
        kernel_fn = self.model.build()[2]
        if self._mask_constant is not None:
            kernel_fn = functools.partial(kernel_fn, mask_constant=self.mask_constant)
        plain = self.views.preprocess is None and not self.views.transforms
        return kernel_fn if plain else exact_kernel_of_views(kernel_fn, self.views)

    def averaged(self, transforms: Callable | Sequence[Callable]) -> "FeatureMap":
        """The map whose features are the mean over an example and its transforms.

        With `T` the identity and the transforms, `z(x) = mean of z(t(x))` over `t` in `T` is the
        feature map of the kernel `mean of k(t(x), t'(x'))` over pairs. Where `T` is a group, such
        as an image and its mirror image, predictions do not change under it, and are those of a
        regression on all transforms of all examples at an absolute regulariser `|T|` times as
        large: what augmentation does, with n examples instead of `|T| n`.

        Use it where the answer does not depend on the transform: mirror images of photographs, not
        of letters.

        Args:
            transforms: functions of a batch of examples (n, *input_shape) that keep its shape; the
                identity is always among them and need not be given.

        Cost: `1 + len(transforms)` times that of the map, but for the last root behind a global
        pool.

        Raises:
            ValueError: a transform changes the shape, or the map is averaged already.
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
        views = self.views.with_transforms(transforms, self.input_shape, self.dtype)
        return dataclasses.replace(self, views=views)

    @property
    def n_features(self) -> dict[str, int]:
        """The number of features p of each kernel, such as `{"nngp": 64, "ntk": 128}`."""
        one = jax.ShapeDtypeStruct((1, *self.input_shape), self.dtype)
        features = eqx.filter_eval_shape(self._program, self.transform, one)
        return {name: getattr(features, name).shape[-1] for name in self.get}

    def _program(self, transform, x: Array) -> Features:
        """The features as a function of the drawn parameters, to be looked at, not run: without
        call-time arguments, which layers are told by `None`.
        """
        static = (self._input_offsets, self.get, self.dtype)
        none = dict.fromkeys(self.call_arguments)
        return _features.__wrapped__(transform, self.views, x, *static, none, self._mask_constant)

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
            **kwargs: NT's call-time arguments, such as `pattern=(pattern1, pattern2)`.

        Returns:
            An array (n1, n2) for a string, else a namedtuple of arrays. Cost: `2 n1 n2 p` FLOPs
            beside the features.

        Example: predictive variances by `nt.predict`, mean and weights those of the features.
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

    def diagonals(self, x: Inputs, **kwargs) -> tuple[Array, Array | None]:
        """The exact kernels `k(x, x)` of each example with itself, (n,) each: NNGP, and NTK or
        `None`. Of each of its positions, (n, *space), where the model leaves any.

        By their own recursion, in the time of a few features; all pairs of positions where the
        model pools them. With `Dropout` those of two independent passes.
        """
        x = checked_inputs(x, shape=self.input_shape, values=False)
        kwargs = self._call_arguments(kwargs)
        x = self.views.single(in_floats(x))
        return exact_diagonals(
            self.model, x, self.get, self.dtype, mask_constant=self._mask_constant, **kwargs
        )

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
