"""Shapes of a finite network's activations."""

import functools

import jax

from ._layer import Layer


def output_shape(layer: Layer, shape):
    """Shape of the layer's output, from tracing NT's `init_fn`.

    Raises:
        ValueError: no position is left, because a window is larger than its input or a slice lies
            outside of it.
    """
    sizes, tree = jax.tree.flatten(shape)
    if layer.specification.is_traced or not all(isinstance(size, int) for size in sizes):
        return _output_shape(layer, shape)
    found, tree = _output_shape_once(layer, tuple(sizes), tree)
    return jax.tree.unflatten(tree, found)


@functools.lru_cache(maxsize=4096)
def _output_shape_once(layer: Layer, sizes: tuple[int, ...], tree):
    """`output_shape` of equal layers is traced once; shapes are flat here, to be hashed."""
    out, tree = jax.tree.flatten(_output_shape(layer, jax.tree.unflatten(tree, sizes)))
    return tuple(out), tree


def _output_shape(layer: Layer, shape):
    shapes = []

    def init(key):
        out, params = layer[0](key, shape)
        shapes.append(out)
        return params

    jax.eval_shape(lambda: init(jax.random.PRNGKey(0)))
    sizes = jax.tree.leaves(shapes[0])
    if any(size <= 0 for size in sizes):
        raise ValueError(
            f"In layer {layer.name}. Inputs of shape {_plain(shape)} leave outputs of shape"
            f" {_plain(shapes[0])}: a window is larger than its input, or a slice selects none of"
            " it. Give larger inputs, or pad with padding='SAME'. The channels of inputs are their"
            " last axis: channels that come first are moved by np.moveaxis(x, 1, -1)."
        )
    return _plain(shapes[0])


def _plain(shape):
    return jax.tree.map(int, shape)


def finite_shape(features):
    """Shape of the finite network's activations that `features` belong to."""
    if isinstance(features, list):
        return [finite_shape(branch) for branch in features]
    return (features.nngp[0].shape[0], *features.space, features.channels)
