"""Views of other packages for NT's modules."""

import builtins
import importlib
import types
from typing import Any

import jax
import jax.core
import jax.extend.core as jex_core
import jax.extend.source_info_util as source_info_util
import jax.interpreters
import scipy
import scipy.linalg
from jax.interpreters import ad

from ._versions import NT


class View(types.ModuleType):
    """A module with a few names replaced or added; the module itself is not changed."""

    def __init__(self, module: types.ModuleType, **names: Any):
        super().__init__(module.__name__)
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _strict_map(f, *args):
    return [f(*a) for a in zip(*args, strict=True)]


def _strict_zip(*args):
    return list(zip(*args, strict=True))


def _eigvalsh(a, eigvals=None, **kwargs):
    """`scipy.linalg.eigvalsh` with the argument that SciPy 1.14 removed."""
    return scipy.linalg.eigvalsh(a, subset_by_index=eigvals, **kwargs)


def _views() -> dict[str, types.ModuleType]:
    """The views by the dotted names under which NT imports them."""
    core = View(
        jax.core,
        **{
            name: getattr(jex_core, name)
            for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
        },
        AbstractValue=type("AbstractValue", (), {}),  # annotations, and one `is` that never held
        Value=Any,  # an annotation
        DShapedArray=None,  # dynamic shapes, which no longer exist
        # Since JAX 0.4.36 `eval_context` refuses tracers; this one passes them on.
        eval_context=jax.ensure_compile_time_eval,
    )
    ad_view = View(
        ad,
        zeros_like_p=jex_core.Primitive(
            "zeros_like"
        ),  # a key of NT's rule tables; JAX emits it no longer
        source_info_util=source_info_util,
        config=types.SimpleNamespace(jax_enable_checks=False),
    )
    util = types.ModuleType("jax.util")
    util.__dict__.update(safe_map=_strict_map, safe_zip=_strict_zip)
    interpreters = View(jax.interpreters, ad=ad_view)
    return {
        "jax": View(jax, core=core, interpreters=interpreters),
        "jax.core": core,
        "jax.interpreters": interpreters,
        "jax.interpreters.ad": ad_view,
        "jax.util": util,
        "scipy": View(scipy, linalg=View(scipy.linalg, eigvalsh=_eigvalsh)),
    }


class _Experimental(types.ModuleType):
    """A lazy `neural_tangents.experimental`, which would import TensorFlow."""

    def __getattr__(self, name: str) -> Any:
        if name in ("empirical_ntk_fn_tf", "get_apply_fn_and_params"):
            return getattr(importlib.import_module(self.__name__), name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


VIEWS = _views()


def import_for_nt(name, globals=None, locals=None, fromlist=(), level=0):
    """The `__import__` of NT's modules."""
    if level == 0 and fromlist and name in VIEWS:
        return VIEWS[name]
    if (level, fromlist) == (1, ("experimental",)) and globals and globals["__name__"] == NT:
        return types.SimpleNamespace(experimental=_Experimental(NT + ".experimental"))
    module = builtins.__import__(name, globals, locals, fromlist, level)
    return VIEWS.get(module.__name__, module)
