"""Rules of `serial`, `repeat` and `parallel`."""

import equinox as eqx
import jax

from ._layer import Layer, Rule, abstracted, advance, as_layer, naming


class Combinator(Rule):
    """A rule made of layers."""

    def __init__(self, layers: list[Layer]):
        self.layers = layers
        self.nonlinearities = sum(layer.rule.nonlinearities for layer in layers)

    def methods(self, method) -> list:
        """The method of each layer."""
        return method.split([layer.rule.nonlinearities for layer in self.layers])

    def looks_at_data(self, method):
        return any(layer.rule.looks_at_data(method) for layer in self.layers)


class Serial(Combinator):
    def plan(self, offsets, shape, method) -> tuple[list, list]:
        """Shapes, and offsets that are needed, before each layer and after the last."""
        shapes = [shape]
        for layer in self.layers:
            shapes.append(output_shape(layer, shapes[-1]))
        needed = [offsets]
        layers = zip(self.layers, self.methods(method), shapes[:-1], strict=True)
        for layer, own, into in reversed(list(layers)):
            needed.append(layer.rule.needs(needed[-1], into, method=own))
        return shapes, needed[::-1]

    def needs(self, offsets, shape, *, method):
        return self.plan(offsets, shape, method)[1][0]

    def fit(self, features, *, method, offsets, key):
        _, needed = self.plan(offsets, finite_shape(features), method)
        keys = jax.random.split(key, max(len(self.layers), 1))
        sample, shapes = features, abstracted(features)
        transforms, ahead = [], []  # `ahead`: transforms that the sample has not been through
        for layer, own, wanted, layer_key in zip(
            self.layers, self.methods(method), needed[1:], keys, strict=False
        ):
            given = shapes
            if layer.rule.looks_at_data(own):
                sample, ahead = advance(SerialTransform(tuple(ahead)), sample), []
                given = sample
            transform = layer.rule.fit(given, method=own, offsets=wanted, key=layer_key)
            shapes = advance(transform, shapes)
            transforms.append(transform)
            ahead.append(transform)
        return SerialTransform(tuple(transforms))

    def series(self, series):
        for layer in self.layers:
            series = naming(layer.rule.series, layer.name)(series)
        return series


class SerialTransform(eqx.Module):
    transforms: tuple

    def __call__(self, features, **kwargs):
        for transform in self.transforms:
            features = transform(features, **kwargs)
        return features


def serial(layer, *layers):
    return Serial([as_layer(inner) for inner in layers])


def repeat(layer, inner, n):
    """n layers with random features of their own; NT's compiled loop is for the exact kernel."""
    return Serial([as_layer(inner)] * n)


class Parallel(Combinator):
    def needs(self, offsets, shape, *, method):
        return [
            layer.rule.needs(wanted, into, method=own)
            for layer, own, wanted, into in zip(
                self.layers, self.methods(method), offsets, shape, strict=True
            )
        ]

    def fit(self, features, *, method, offsets, key):
        keys = jax.random.split(key, len(self.layers))
        branches = zip(self.layers, self.methods(method), features, offsets, keys, strict=True)
        return ParallelTransform(
            tuple(
                layer.rule.fit(branch, method=own, offsets=wanted, key=branch_key)
                for layer, own, branch, wanted, branch_key in branches
            )
        )

    def series(self, series):
        branches = zip(self.layers, series, strict=True)
        return [naming(layer.rule.series, layer.name)(branch) for layer, branch in branches]


class ParallelTransform(eqx.Module):
    transforms: tuple

    def __call__(self, features, **kwargs):
        return [
            transform(branch, **kwargs)
            for transform, branch in zip(self.transforms, features, strict=True)
        ]


def parallel(layer, *layers):
    return Parallel([as_layer(inner) for inner in layers])


def output_shape(layer: Layer, shape):
    """Shape of the layer's output, from NT's `init_fn` without drawing weights.

    Raises:
        ValueError: a window is larger than its input, so that no position is left.
    """
    shapes = []

    def init(key):
        out, params = layer[0](key, shape)
        shapes.append(out)
        return params

    jax.eval_shape(init, jax.random.PRNGKey(0))
    sizes = jax.tree.leaves(shapes[0])
    if any(size <= 0 for size in sizes):
        raise ValueError(
            f"In layer {layer.name}. Inputs of shape {_plain(shape)} leave outputs of shape"
            f" {_plain(shapes[0])}: the window is larger than its input. Give larger inputs, or pad"
            " with padding='SAME'."
        )
    return _plain(shapes[0])


def _plain(shape):
    return jax.tree.map(int, shape)


def finite_shape(features):
    """Shape of the finite network's activations where `features` stand."""
    if isinstance(features, list):
        return [finite_shape(branch) for branch in features]
    return (features.nngp[0].shape[0], *features.space, features.channels)
