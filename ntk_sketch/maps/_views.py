"""Preprocessing of examples, and transforms that features are averaged over."""

import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp

from .._typing import Array, Inputs
from ..numerics._precision import promoted


class Views(eqx.Module):
    """The network's inputs for each example: the example and its transforms, then preprocessed.

    Attributes:
        preprocess: a function from examples to inputs of the network, or `None`.
        transforms: functions of a batch of examples that keep its shape.
    """

    preprocess: Any = None
    transforms: tuple[Callable, ...] = ()

    @property
    def count(self) -> int:
        return 1 + len(self.transforms)

    def __call__(self, x: Array) -> Array:
        """(count n, *shape): first the examples, then one transform after the other."""
        x = jnp.concatenate([x, *(transform(x) for transform in self.transforms)])
        return x if self.preprocess is None else self.preprocess(x)

    def mean(self, leaf: Array) -> Array:
        """The mean of an array (count n, ...) over the views of each example: (n, ...)."""
        return leaf.reshape(self.count, -1, *leaf.shape[1:]).mean(0)

    def single(self, x: Array) -> Array:
        """Inputs of the network (n, *shape), one for each example."""
        if self.transforms:
            raise NotImplementedError(
                "this map is averaged over transforms: the exact kernel of an example with itself"
                " is a mean over pairs of its transforms, which have no recursion of their own. Use"
                " exact_kernel_fn."
            )
        return self(x)

    def with_transforms(self, transforms, shape: tuple[int, ...], dtype: np.dtype) -> "Views":
        """A copy with these transforms, which must keep the shape of examples."""
        if self.transforms:
            raise ValueError(
                "this map is averaged over transforms already; give all of them in one call of"
                " averaged()."
            )
        transforms = (transforms,) if callable(transforms) else tuple(transforms)
        examples = jax.ShapeDtypeStruct((2, *shape), dtype)
        for transform in transforms:
            after = getattr(eqx.filter_eval_shape(transform, examples), "shape", None)
            if after != examples.shape:
                raise ValueError(
                    f"averaged: the transform {getattr(transform, '__name__', transform)} makes"
                    f" {after} of examples of shape {examples.shape}; needed: a function of a batch"
                    " that keeps its shape."
                )
        return Views(self.preprocess, transforms)


def check_averaged(call_arguments: frozenset[str]) -> None:
    """Refuses models with call-time arguments, which transformed examples would need anew."""
    if call_arguments:
        raise NotImplementedError(
            f"averaged: layers of this model take {', '.join(sorted(call_arguments))} at call time,"
            " which belong to examples as they are; transforms would need their own."
        )


def preprocessed(preprocess: Any, x: Any) -> Any:
    """The network's inputs for example inputs, or their shape if `x` is a shape."""
    if preprocess is None:
        return x
    if not callable(preprocess):
        raise TypeError(
            "preprocess is a function of a batch of examples, such as an equinox.Module with the"
            f" fitted numbers; got {preprocess!r}."
        )
    abstract = isinstance(x, jax.ShapeDtypeStruct)
    made = (eqx.filter_eval_shape if abstract else _computed)(preprocess, in_floats(x))
    if getattr(made, "ndim", 0) < 2 or made.shape[0] != x.shape[0]:
        raise ValueError(
            f"preprocess makes {getattr(made, 'shape', made)} of examples of shape"
            f" {tuple(x.shape)}; needed: one input of the network for each example, (n, *shape)."
        )
    return made


@eqx.filter_jit
def _computed(preprocess, x):
    return preprocess(x)


def in_floats(x: Any) -> Any:
    """Examples, or their shape, in the dtype that maps compute in: float32 at least."""
    dtype = promoted(jax.dtypes.canonicalize_dtype(x.dtype), jnp.float32)
    if isinstance(x, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(x.shape, dtype)
    return jnp.asarray(x).astype(dtype)


def exact_kernel_of_views(kernel_fn: Callable, views: Views) -> Callable:
    """The kernel of averaged features: the mean of `kernel_fn` over all pairs of views."""

    def averaged_kernel_fn(x1: Inputs, x2: Inputs | None = None, get: Any = None, **kwargs):
        first = _split(views, x1)
        second = first if x2 is None else _split(views, x2)
        kernels = [kernel_fn(a, b, get, **kwargs) for a, b in itertools.product(first, second)]
        return jax.tree.map(lambda *k: sum(k) / len(k), *kernels)

    return averaged_kernel_fn


def _split(views: Views, x: Inputs) -> list[Array]:
    return jnp.split(views(in_floats(x)), views.count)
