"""What a feature map is made of: written down, made again, and told from others."""

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
    def from_specification(cls: type[M], specification: dict, arrays: Sequence) -> M:
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
        settings = (self.method, self.input_shape, self.get, self.dtype, self.views)
        if self._mask_constant is not None:
            settings = (*settings, self._mask_constant)
        return fingerprint(self.model, settings, self.transform)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the map to a file, which `ntk_sketch.load` reads: in another process, without the
        sample and without drawing or fitting anything.

        One safetensors file holds the arrays and, in its header, `specification` and `fingerprint`.
        It is written beside `path`, then takes its place at once: an error leaves what was there.

        Args:
            path: of the file. Its folder must be there.

        Raises:
            TypeError: a function or class that cannot be imported, such as a lambda in
                `preprocess`; a note says which layer it belongs to.
            OSError: the folder is not there, or the disk is full.

        Warns:
            RuntimeWarning: a function or class of the script that runs, which others do not have.

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

    def __hash__(self):
        raise TypeError(
            "a FeatureMap holds arrays and has no hash. In place of jax.jit(feature_map) use"
            " equinox.filter_jit(feature_map), or make the map an argument of the function under"
            " jit; its own call is compiled already."
        )
