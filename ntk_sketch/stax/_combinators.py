"""Rules of `serial`, `repeat` and `parallel`."""

import contextlib
import functools
import math

import equinox as eqx
import jax

from .._typing import PRNGKey
from ..numerics._compiling import explained, fitting_jit
from ._compression import compresses, compression, wanted_before
from ._layer import Layer, as_layer
from ._rule import Covariances, Positions, Rule
from ._shapes import finite_shape, output_shape
from ._walk import SerialTransform, Walk

#: Bands of covariances at the input of a layer: K and Θ.
_BANDS = 2


class Combinator(Rule):
    """A rule made of several layers. `rules` may differ from the layers' own (`before_flatten`)."""

    def __init__(self, layers: list[Layer], rules: list[Rule] | None = None):
        self.layers = layers
        self.rules = [layer.rule for layer in layers] if rules is None else rules
        self.nonlinearities = sum(rule.nonlinearities for rule in self.rules)
        self.call_arguments = frozenset().union(*(rule.call_arguments for rule in self.rules))
        self.per_example = frozenset(
            name
            for name in self.call_arguments
            if all(name in r.per_example for r in self.rules if name in r.call_arguments)
        )
        self.positions = self.first_change([rule.positions for rule in self.rules])
        self.masks = all(rule.masks for rule in self.rules)
        self.compares = any(rule.compares for rule in self.rules)
        self.makes_patches = any(rule.makes_patches for rule in self.rules)

    def first_change(self, positions: list[Positions]) -> Positions:
        """The first of the layers' actions on positions that is not "kept", if there is one."""
        raise NotImplementedError

    def methods(self, method) -> list:
        """The method of each layer."""
        return method.split([rule.nonlinearities for rule in self.rules])

    def looks_at_data(self, method):
        may = method.looks_at_data
        return any(
            rule.looks_at_data(method) or (may and rule.forms_patches) for rule in self.rules
        )

    @contextlib.contextmanager
    def at(self, index: int):
        """Adds the layer's number and name to errors that arise in it."""
        try:
            with explained():
                yield self.rules[index]
        except Exception as error:
            name = self.layers[index].name
            error.add_note(f"In layer {index + 1} of {len(self.layers)}, {name}.")
            raise


def taken(rule: Rule, kwargs: dict) -> dict:
    """The call-time arguments that a rule takes."""
    return {name: value for name, value in kwargs.items() if name in rule.call_arguments}


class Serial(Combinator):
    def __init__(self, layers: list[Layer], rules: list[Rule] | None = None):
        super().__init__(layers, rules)
        self.rules = _as_flattened(self.rules, later="kept")

    def first_change(self, positions):
        return next((change for change in positions if change != "kept"), "kept")

    def before_flatten(self):
        return Serial(self.layers, _as_flattened(self.rules, later="flattened"))

    def plan(self, offsets, shape, method, kwargs) -> tuple[list, list]:
        """Shapes and needed offsets, before each layer and after the last."""
        shapes = [shape]
        for layer in self.layers:
            shapes.append(output_shape(layer, shapes[-1]))
        needed = [offsets]
        layers = zip(self.methods(method), shapes[:-1], strict=True)
        for index, (own, into) in reversed(list(enumerate(layers))):
            with self.at(index) as rule:
                wanted = rule.needs(needed[-1], into, method=own, **taken(rule, kwargs))
                if self._joins(index):
                    wanted = wanted_before(rule.own_method(own), wanted, into)
                needed.append(wanted)
        return shapes, needed[::-1]

    def _joins(self, index: int) -> bool:
        """Whether the layer's input may be patches, which a method may compress first."""
        if not self.rules[index].forms_patches:
            return False
        for rule in reversed(self.rules[:index]):
            if rule.makes_patches or rule.positions == "expanded":
                return rule.makes_patches
        return True

    def covariances(self, offsets, shape, *, method, **kwargs):
        shapes, needed = self.plan(offsets, shape, method, kwargs)
        bands = [_band(*at) for at in zip(shapes, needed, strict=True)]
        layers = zip(self.rules, self.methods(method), needed[1:], shapes, strict=False)
        inner = [
            rule.covariances(wanted, into, method=own, **taken(rule, kwargs))
            for rule, own, wanted, into in layers
        ]
        return Covariances(
            max(*bands, *(found.bands for found in inner)),
            max(found.pairs for found in inner),
            sum(found.shared for found in inner),
        )

    def needs(self, offsets, shape, *, method, **kwargs):
        return self.plan(offsets, shape, method, kwargs)[1][0]

    def fit(self, features, *, method, offsets, key, **kwargs):
        walk = Walk(features, kwargs, self.per_example)
        self.walked(walk, method, offsets, key, kwargs)
        return SerialTransform(tuple(walk.transforms))

    def walked(self, walk: Walk, method, offsets, key, kwargs: dict) -> None:
        """Fits one layer after the other, and adds their transforms to the walk."""
        _, needed = self.plan(offsets, finite_shape(walk.shapes), method, kwargs)
        keys = _split(key, len(self.layers))
        for index, (own, wanted, layer_key) in enumerate(
            zip(self.methods(method), needed[1:], keys, strict=True)
        ):
            with self.at(index) as rule:
                if isinstance(rule, Serial):
                    with walk.nested():
                        rule.walked(walk, own, wanted, layer_key, taken(rule, kwargs))
                    continue
                used = rule.own_method(own)
                if rule.forms_patches and compresses(used, walk.shapes):
                    given = walk.given(used.looks_at_data)
                    name, keys = self.layers[index].name, _split(_apart(layer_key), _count(given))
                    walk.add(compression(name, used, given, keys))
                transform = rule.fit(
                    walk.given(rule.looks_at_data(own)),
                    method=own,
                    offsets=wanted,
                    key=layer_key,
                    **taken(rule, kwargs),
                )
                walk.add(transform)

    def series(self, series):
        for index in range(len(self.layers)):
            with self.at(index) as rule:
                series = rule.series(series)
        return series


def _as_flattened(rules: list[Rule], later: Positions) -> list[Rule]:
    """The rules of consecutive layers, with `before_flatten` where positions are flattened next.

    `later` is what happens to positions after the last layer.
    """
    found = []
    for rule in reversed(rules):
        found.append(rule.before_flatten() if later == "flattened" else rule)
        later = later if rule.positions == "kept" else rule.positions
    return found[::-1]


def serial(layer, *layers):
    return Serial([as_layer(inner) for inner in layers])


def repeat(layer, inner, n):
    """n layers, each with its own random features; NT's compiled loop is for exact kernels."""
    return Serial([as_layer(inner)] * n)


class Parallel(Combinator):
    def first_change(self, positions):
        # Positions kept in one branch are changed by the layers after the branches.
        return "kept" if "kept" in positions else positions[0]

    def covariances(self, offsets, shape, *, method, **kwargs):
        branches = zip(self.rules, self.methods(method), offsets, shape, strict=True)
        inner = [
            rule.covariances(wanted, into, method=own, **taken(rule, kwargs))
            for rule, own, wanted, into in branches
        ]
        return Covariances(*map(sum, zip(*inner, strict=True)))

    def before_flatten(self):
        return Parallel(self.layers, [rule.before_flatten() for rule in self.rules])

    def needs(self, offsets, shape, *, method, **kwargs):
        needed = []
        branches = zip(self.methods(method), offsets, shape, strict=True)
        for index, (own, wanted, into) in enumerate(branches):
            with self.at(index) as rule:
                needed.append(rule.needs(wanted, into, method=own, **taken(rule, kwargs)))
        return needed

    def fit(self, features, *, method, offsets, key, **kwargs):
        keys, transforms = _split(key, len(self.layers)), []
        branches = zip(self.methods(method), features, offsets, keys, strict=True)
        for index, (own, branch, wanted, branch_key) in enumerate(branches):
            with self.at(index) as rule:
                transform = rule.fit(
                    branch, method=own, offsets=wanted, key=branch_key, **taken(rule, kwargs)
                )
                transforms.append(transform)
        return ParallelTransform(tuple(transforms))

    def series(self, series):
        after = []
        for index, branch in enumerate(series):
            with self.at(index) as rule:
                after.append(rule.series(branch))
        return after


class ParallelTransform(eqx.Module):
    transforms: tuple

    def __call__(self, features, **kwargs):
        return [
            transform(branch, **kwargs)
            for transform, branch in zip(self.transforms, features, strict=True)
        ]


def parallel(layer, *layers):
    return Parallel([as_layer(inner) for inner in layers])


@functools.partial(fitting_jit, level=0)
def _split(key: PRNGKey, count: int) -> tuple[PRNGKey, ...]:
    """One key for each layer, by `jax.random.split`."""
    return tuple(jax.random.split(key, count)) if count else ()


@functools.partial(fitting_jit, level=0)
def _apart(key: PRNGKey) -> PRNGKey:
    """A key that differs from those of all layers, for the compression before a layer."""
    return jax.random.fold_in(key, 2**31 - 1)


def _band(shape, offsets) -> int:
    """Numbers of K and Θ of one example at these offsets. Branches have lists of both."""
    if isinstance(offsets, list):
        return sum(_band(*branch) for branch in zip(shape, offsets, strict=True))
    return 0 if offsets is None else _BANDS * math.prod([*shape[1:-1], *map(len, offsets)])


def _count(features) -> int:
    return len(features) if isinstance(features, list) else 1
