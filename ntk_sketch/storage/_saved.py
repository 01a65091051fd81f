"""`save` and `load`: writing objects of this package to files, and reading them."""

import json
import os
import re
import sys
import warnings
from typing import Any

import jax

from .._version import __version__
from ..identity._written import read, written
from . import _file
from ._atomic import replacing

_INNER = ("ntk_sketch", "equinox")


def save(value: Any, path: str | os.PathLike, fingerprint: str | None) -> None:
    """Writes an object that `written` supports to a file. Methods `save` call it.

    Args:
        value: the object.
        path: of the file, which is replaced if it exists.
        fingerprint: that of the feature map which the object belongs to.

    Raises:
        TypeError: a function or class in the object cannot be imported.
        OSError: the folder does not exist, or the disk is full.
    """
    arrays: list = []
    specification = written(value, arrays)
    own = sorted(set(re.findall(r'"__main__:([^"]+)"', json.dumps(specification))))
    if own:
        warnings.warn(
            f"{own[0]} is defined in the script or notebook that saves: only a script that defines"
            " it too can load the file. Define it in a module and import it from there",
            RuntimeWarning,
            stacklevel=_callers_level(),
        )
    about = {
        "kind": type(value).__name__,
        "fingerprint": fingerprint,
        "ntk_sketch": __version__,
        "jax": jax.__version__,
        "specification": specification,
    }
    with replacing(path) as temporary:
        _file.write(temporary, about, arrays)


def _callers_level() -> int:
    """The `stacklevel` of the first caller outside of this package and of Equinox."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and str(frame.f_globals.get("__name__")).split(".")[0] in _INNER:
        frame, level = frame.f_back, level + 1
    return level


def load(path: str | os.PathLike) -> Any:
    """Reads a feature map, a solution or statistics from the file that their `save` wrote.

    Use this for predictions in another process: it needs no training data and fits nothing. With
    the same version of JAX on the same machine, predictions are equal bit for bit. With another
    version or other hardware they agree to rounding.

    Only load files that you trust. A file holds numbers and names, but no code. The names are
    import paths of functions and classes (layers, methods, your own `preprocess`). Their modules
    are imported, which runs them, and predictions and kernels call the functions. Your own
    functions are used as they are now, not as they were when the file was saved.

    Args:
        path: of a file that `FeatureMap.save`, `EmpiricalFeatureMap.save`, `RidgeSolution.save` or
            `GramState.save` wrote.

    Returns:
        The `FeatureMap`, `EmpiricalFeatureMap`, `RidgeSolution` or `ntk_sketch.solvers.GramState`
        that was saved, with arrays on JAX's default device.

    Cost: the file is read twice, once for its checksum. Features are compiled at their first call.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file is of another kind, was truncated or altered, has the format of a newer
            version of this package, or holds float64 arrays while JAX has 32 bits.
        ImportError: a function or class that the file names cannot be imported.

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
        >>> solution = ns.ridge(features, x, np.sin(x[:, 0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     solution.save(os.path.join(folder, "solution.safetensors"))
        ...     loaded = ns.load(os.path.join(folder, "solution.safetensors"))
        >>> type(loaded).__name__
        'RidgeSolution'
        >>> bool(np.array_equal(loaded.predict(x), solution.predict(x)))
        True
    """
    about, arrays = _file.read(path)
    if "specification" not in about:
        raise ValueError(
            f"{os.fspath(path)} holds a {about.get('kind')} of a run, no model: the call that wrote"
            " it goes on from there, with the same checkpoint="
        )
    saved_by = f"{os.fspath(path)} was saved by ntk_sketch {about['ntk_sketch']}"
    try:
        return read(about["specification"], arrays)
    except ImportError as error:
        raise ImportError(
            f"{saved_by}: {error}. A module of your own must be where Python finds it, under the"
            " name it had then (install it, or add its folder to PYTHONPATH); for one of a package"
            f" install the version that saved the file. This is ntk_sketch {__version__}."
        ) from error
    except ValueError as error:
        raise ValueError(f"{saved_by}; this is {__version__}. {error}") from error
