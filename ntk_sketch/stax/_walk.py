"""Taking a sample through the layers of a net while they are fitted."""

import contextlib

import equinox as eqx

from ..features._hidden import is_abstract
from ._rule import Transform
from ._sample import abstracted, advance, shapes_after


class SerialTransform(eqx.Module):
    """One transform after the other."""

    transforms: tuple

    def __call__(self, features, **kwargs):
        for transform in self.transforms:
            features = transform(features, **kwargs)
        return features


class Walk:
    """Takes a sample through layers while they are fitted one after the other.

    Shapes are computed after every layer. The sample itself is computed only if a layer needs it.
    """

    def __init__(self, features, kwargs: dict, per_example: frozenset[str]):
        self.kwargs, self.transforms, self.per_example = kwargs, [], per_example
        self.shapes = abstracted(features)
        self._sample = None if is_abstract(features) else features
        self._ahead = []  # transforms not yet applied to the sample

    def given(self, looks_at_data: bool):
        """The input of the next layer: the sample's features if it needs them, else shapes."""
        if not looks_at_data or self._sample is None:
            return self.shapes
        if self._ahead:
            transform = SerialTransform(tuple(self._ahead))
            self._sample = advance(
                transform, self._sample, self.shapes, self.per_example, **self.kwargs
            )
            self._ahead = []
        return self._sample

    def add(self, transform: Transform) -> None:
        """Appends the transform of a fitted layer."""
        self.shapes = shapes_after(transform, self.shapes, **self.kwargs)
        self.transforms.append(transform)
        self._ahead.append(transform)

    @contextlib.contextmanager
    def nested(self):
        """What is added inside becomes one transform, that of a net in the net. Its layers see the
        sample as far as it is computed, and no layer is applied to it twice.
        """
        before, self.transforms = self.transforms, []
        yield
        self.transforms = [*before, SerialTransform(tuple(self.transforms))]
