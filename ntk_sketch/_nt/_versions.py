"""Versions of Neural Tangents and JAX that work together."""

import importlib.metadata
import sys

import jax

NT = "neural_tangents"
NT_VERSION = "0.6.5"
MIN_JAX = "0.4.35"


def check_versions() -> None:
    """Raises an `ImportError` with advice unless JAX and NT are known to work together."""
    if jax.__version_info__ < tuple(map(int, MIN_JAX.split("."))):
        raise ImportError(
            f"ntk_sketch needs jax>={MIN_JAX}, got jax {jax.__version__} ({jax.__file__}).\n"
            f"Upgrade it: pip install --upgrade 'jax>={MIN_JAX}' 'jaxlib>={MIN_JAX}'"
        )
    loaded = sys.modules.get(NT)
    try:
        found = getattr(loaded, "__version__", None) or importlib.metadata.version(
            "neural-tangents"
        )
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found != NT_VERSION:
        got = "it is not installed" if found is None else f"got neural-tangents {found}"
        raise ImportError(
            f"ntk_sketch needs neural-tangents=={NT_VERSION}, {got} (with jax {jax.__version__}).\n"
            f"Install it: pip install 'neural-tangents=={NT_VERSION}' (this brings TensorFlow), "
            f"or, without TensorFlow: "
            f"pip install --no-deps 'neural-tangents=={NT_VERSION}' && pip install frozendict"
        )
