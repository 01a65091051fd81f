"""The fields of a feature map, their JSON form, their fingerprint and their file."""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import equinox as eqx
import numpy as np

from .._arguments import checked_inputs
from .._typing import Array, Inputs
from ..identity._example_keys import is_among
from ..identity._fingerprint import Fingerprint, fingerprint
from ..identity._specification import Specification
from ..identity._written import read, written
from ..methods import Method
from ..storage._saved import save
from ._views import Views

M = TypeVar("M", bound="Parts")


class Parts(eqx.Module):
    """The parts of a `FeatureMap`, documented there."""

    transform: Any
    views: Views
    model: Specification
    method: Method
    _input_offsets: tuple[tuple[int, ...], ...] | None = eqx.field(static=True)
    input_shape: tuple[int, ...] = eqx.field(static=True)
    get: tuple[str, ...] = eqx.field(static=True)
    call_arguments: frozenset[str] = eqx.field(static=True)
    dtype: str = eqx.field(static=True)
    _landmark_keys: Array | None = None
    _mask_constant: str | None = eqx.field(static=True, default=None)

    @property
    def mask_constant(self) -> float | None:
        """The number that marks masked entries of examples; `None` without masks."""
        return None if self._mask_constant is None else float(self._mask_constant)

    @property
    def specification(self) -> dict:
        """The map without its arrays, as JSON: layers, method, shapes and the order of arrays.

        Use this when you store maps in a format of your own; `save` writes a file.
        `FeatureMap.from_specification(specification, arrays)` makes the same map again, with the
        same version of this package. Functions and classes of users are written by import path.

        Raises:
            TypeError: a function or class cannot be imported, such as a lambda. A note names its
                layer.
        """
        return written(self, [])

    @property
    def arrays(self) -> tuple:
        """The arrays that `specification` refers to, in its order."""
        arrays: list = []
        written(self, arrays)
        return tuple(arrays)

    @classmethod
    def from_specification(cls: type[M], specification: dict, arrays: Sequence) -> M:
        """Makes a map from the `specification` and `arrays` of another.

        Raises:
            ImportError: a function or class of the specification cannot be imported.
        """
        return read(specification, arrays)

    @property
    def fingerprint(self) -> Fingerprint:
        """Digests of the map's model, method and arrays.

        Use this to check that stored features or statistics belong to this map.

        Cost: every array is read once on the host.
        """
        settings = (self.method, self.input_shape, self.get, self.dtype, self.views)
        if self._mask_constant is not None:
            settings = (*settings, self._mask_constant)
        return fingerprint(self.model, settings, self.transform)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the map to a file, which `ntk_sketch.load` reads in any process.

        Loading needs no sample, and draws and fits nothing. The safetensors file holds the arrays
        and, in its header, `specification` and `fingerprint`. It is written to a temporary file
        that then replaces `path`, so that an error leaves an older file as it was.

        Args:
            path: of the file. Its folder must exist.

        Raises:
            TypeError: a function or class cannot be imported, such as a lambda in `preprocess`. A
                note names its layer.
            OSError: the folder does not exist, or the disk is full.

        Warns:
            RuntimeWarning: a function or class is defined in the script that runs, from which other
                processes cannot import it.

        Example:
            >>> import os
            >>> import tempfile
            >>> import jax
            >>> import numpy as np
            >>> import ntk_sketch as ns
            >>> from ntk_sketch import stax
            >>> model = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
            >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
            >>> features = ns.feature_map(model, x, ns.Nystroem(16), key=jax.random.key(0))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     features.save(os.path.join(folder, "map.safetensors"))
            ...     loaded = ns.load(os.path.join(folder, "map.safetensors"))
            >>> bool(np.array_equal(loaded(x).ntk, features(x).ntk))
            True
        """
        save(self, path, str(self.fingerprint))

    def is_landmark(self, x: Inputs) -> np.ndarray:
        """Which examples of x the last nonlinearity has landmarks from: booleans (n,).

        Use this to leave them out of a validation error: they have features of their own, so that a
        regression fits them better than new examples. They are recognised by their values, in any
        order.

        Args:
            x: inputs (n, *input_shape).

        Cost: one pass over x on the host.
        """
        x = checked_inputs(x, shape=self.input_shape, values=False)
        if self._landmark_keys is None:
            return np.zeros(len(x), bool)
        return is_among(x, self._landmark_keys)

    def __hash__(self):
        raise TypeError(
            "a FeatureMap holds arrays and has no hash. In place of jax.jit(feature_map) use"
            " equinox.filter_jit(feature_map), or make the map an argument of the function under"
            " jit; its own call is compiled already."
        )
