"""The one door to Neural Tangents: importing this module makes NT 0.6.5 run on current JAX.

NT's last release (December 2023) imports names that JAX has removed since, and TensorFlow. Here
its modules are loaded, as they are on disk, by a loader that answers their `import` statements:
where they ask for JAX or SciPy they get a *view* of it, with the few missing names added. NT alone
sees the views; nothing is set on JAX, not even for the time of the import, so other threads and
other libraries cannot notice. Functions of NT that rely on internals that are gone are replaced
in NT's modules as these are loaded. An NT that somebody imported before is repaired in place.

After `import ntk_sketch`, `import neural_tangents` is an ordinary import and never imports
TensorFlow; only `nt.experimental.<function>` and `import neural_tangents.experimental` do.

`STRUCTURED_DERIVATIVES` and `AUTO` of `nt.empirical_ntk_fn` still lean on the rule tables of
`jax.interpreters.ad`. The rest of NT, with `JACOBIAN_CONTRACTION` and `NTK_VECTOR_PRODUCTS`, needs
nothing of JAX but its documented functions.
"""

import builtins
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import inspect
import math
import sys
import types
from typing import Any

import jax
import jax.core
import jax.interpreters
import jax.numpy as jnp
import numpy as np
import scipy
import scipy.linalg

NT_VERSION = "0.6.5"
MIN_JAX = "0.4.35"

_NT = "neural_tangents"


def _check_versions() -> None:
    """Raises an `ImportError` with the remedy unless JAX and NT are known to work together."""
    if jax.__version_info__ < tuple(map(int, MIN_JAX.split("."))):
        raise ImportError(
            f"ntk_sketch needs jax>={MIN_JAX}, got jax {jax.__version__} ({jax.__file__}).\n"
            f"Upgrade it: pip install --upgrade 'jax>={MIN_JAX}' 'jaxlib>={MIN_JAX}'"
        )
    loaded = sys.modules.get(_NT)
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


_check_versions()

# Below the check, since a JAX that is too old lacks these modules.
import jax.extend.core as jex_core  # noqa: E402
import jax.extend.source_info_util as source_info_util  # noqa: E402
from jax.interpreters import ad  # noqa: E402

# ------------------------------------------------ what NT's modules see of other packages


class _View(types.ModuleType):
    """A module seen with a few names replaced or added; the module itself stays as it is."""

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
    """Dotted name -> what NT's modules get under it."""
    core = _View(
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
    ad_view = _View(
        ad,
        zeros_like_p=jex_core.Primitive(
            "zeros_like"
        ),  # a key of NT's rule tables; JAX emits it no longer
        source_info_util=source_info_util,
        config=types.SimpleNamespace(jax_enable_checks=False),
    )
    util = types.ModuleType("jax.util")
    util.__dict__.update(safe_map=_strict_map, safe_zip=_strict_zip)
    interpreters = _View(jax.interpreters, ad=ad_view)
    return {
        "jax": _View(jax, core=core, interpreters=interpreters),
        "jax.core": core,
        "jax.interpreters": interpreters,
        "jax.interpreters.ad": ad_view,
        "jax.util": util,
        "scipy": _View(scipy, linalg=_View(scipy.linalg, eigvalsh=_eigvalsh)),
    }


class _Experimental(types.ModuleType):
    """`neural_tangents.experimental`, which imports TensorFlow, until somebody uses it."""

    def __getattr__(self, name: str) -> Any:
        if name in ("empirical_ntk_fn_tf", "get_apply_fn_and_params"):
            return getattr(importlib.import_module(self.__name__), name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


_VIEWS = _views()


def _import(name, globals=None, locals=None, fromlist=(), level=0):
    """`__import__` of NT's modules."""
    if level == 0 and fromlist and name in _VIEWS:
        return _VIEWS[name]
    if (level, fromlist) == (1, ("experimental",)) and globals and globals["__name__"] == _NT:
        return types.SimpleNamespace(experimental=_Experimental(_NT + ".experimental"))
    module = builtins.__import__(name, globals, locals, fromlist, level)
    return _VIEWS.get(module.__name__, module)


# ------------------------------------------------ functions of NT, rewritten


def _eqn_vjp_fn(eqn, cts_in, *invals):
    """NT's function of this name: cotangents of the undefined ones among `invals`."""
    if eqn is None:  # the identity
        return (cts_in,)
    primitive, params = eqn.primitive, eqn.params
    undefined = [i for i, v in enumerate(invals) if ad.is_undefined_primal(v)]

    if type(cts_in) is ad.Zero:
        cts = {i: ad.Zero(invals[i].aval) for i in undefined}
        return tuple(cts.get(i) for i in range(len(invals)))

    cts_out = [cts_in] if primitive.multiple_results else cts_in
    # The rule rather than `linear_transpose`: NT trims `invals` to shapes that `bind` refuses.
    if primitive in ad.primitive_transposes:
        return ad.primitive_transposes[primitive](cts_out, *invals, **params)

    # `slice`, `dynamic_slice`, `gather`, `checkpoint`: JAX moved these to a newer kind of rule.
    def linear(*xs):
        full = list(invals)
        for i, x in zip(undefined, xs, strict=True):
            full[i] = x
        return primitive.bind(*full, **params)

    avals = [jax.ShapeDtypeStruct(invals[i].aval.shape, invals[i].aval.dtype) for i in undefined]
    cts = dict(zip(undefined, jax.linear_transpose(linear, *avals)(cts_out), strict=True))
    return tuple(cts.get(i) for i in range(len(invals)))


def _split_known(jaxpr, consts):
    """Evaluates the equations that do not depend on `jaxpr.invars`.

    JAX leaves such equations in linear jaxprs now; NT takes every equation of the jaxpr it walks
    for a linear one.
    """
    known = dict(zip(jaxpr.constvars, consts, strict=True))
    linear = set(jaxpr.invars)
    eqns = []
    for eqn in jaxpr.eqns:
        if any(v in linear for v in eqn.invars if not isinstance(v, jex_core.Literal)):
            eqns.append(eqn)
            linear.update(eqn.outvars)
            continue
        vals = [v.val if isinstance(v, jex_core.Literal) else known[v] for v in eqn.invars]
        params, subfuns = eqn.primitive.get_bind_params(eqn.params), ()
        if isinstance(params, tuple):  # before JAX 0.10
            subfuns, params = params
        out = eqn.primitive.bind(*subfuns, *vals, **params)
        known.update(
            zip(eqn.outvars, out if eqn.primitive.multiple_results else [out], strict=True)
        )
    # Only what NT reads of a jaxpr: the constructor of `Jaxpr` changes between versions.
    split = types.SimpleNamespace(
        constvars=list(known), invars=jaxpr.invars, outvars=jaxpr.outvars, eqns=eqns
    )
    return split, list(known.values())


def _get_primals_out_and_pullback(fn, mode, _j_rules, _s_rules, _fwd, *primals_in):
    """NT's function of this name, through `jax.linearize` instead of its internals."""
    empirical = sys.modules[_NT + "._src.empirical"]
    with jax.disable_jit():
        primals_out, f_jvp = jax.linearize(fn, *primals_in)
        closed = jax.make_jaxpr(f_jvp)(*primals_in)
    jaxpr, consts = _split_known(closed.jaxpr, closed.consts)

    def pullback_fn(*cts_in):
        cts_out = empirical._backward_pass(
            jaxpr,
            mode=mode,
            consts=consts,
            primals_in=[ad.UndefinedPrimal(v.aval) for v in jaxpr.invars],
            cotangents_in=tuple(jax.tree_util.tree_leaves(cts_in)),
            _j_rules=_j_rules,
            _s_rules=_s_rules,
            _fwd=_fwd,
        )
        return jax.tree_util.tree_structure(primals_in).unflatten(cts_out)

    return primals_out, pullback_fn


def _get_flops(f, optimize, *args, **kwargs):
    """NT's function of this name; `cost_analysis()` was a list once."""
    lowered = jax.jit(f).lower(*args, **kwargs)
    analysis = (lowered.compile() if optimize else lowered).cost_analysis()
    if isinstance(analysis, list | tuple):
        analysis = analysis[0]
    if not analysis:
        raise NotImplementedError(
            f"XLA has no cost analysis on {jax.default_backend()!r}, which NtkImplementation.AUTO "
            "compares: choose another `implementation`."
        )
    return analysis["flops"]


_REWRITTEN = {
    _NT + "._src.empirical": {
        "_eqn_vjp_fn": _eqn_vjp_fn,
        "_get_flops": _get_flops,
        "_get_primals_out_and_pullback": _get_primals_out_and_pullback,
        # Both are called on abstract values too, which `jax.numpy` refuses.
        "jnp": _View(jnp, size=lambda x: math.prod(jnp.shape(x)), dtype=jnp.result_type),
    },
    # Pools divide by it: a NumPy integer has a dtype, which strict promotion refuses to mix.
    _NT + "._src.stax.linear": {"np": _View(np, prod=math.prod)},
}


def _by_position(fn: jax.custom_jvp):
    """The same function, given its arguments by position: a static one that comes by keyword is
    counted among the dynamic ones by JAX, which raises under `jax_enable_checks`.
    """
    signature = inspect.signature(fn)

    @functools.wraps(fn)
    def by_position(*args, **kwargs):
        return fn(*signature.bind(*args, **kwargs).args)

    return by_position


def _repair(module: types.ModuleType) -> None:
    """Gives a loaded module of NT its views and rewritten functions, unless it has them."""
    views = {id(sys.modules[name]): view for name, view in _VIEWS.items() if name in sys.modules}
    for name, value in list(vars(module).items()):
        if isinstance(value, types.ModuleType) and id(value) in views:
            setattr(module, name, views[id(value)])
        elif isinstance(value, jax.custom_jvp) and value.nondiff_argnums:
            setattr(module, name, _by_position(value))
    vars(module).update(_REWRITTEN.get(module.__name__, {}))


# ------------------------------------------------ loading


class _Loader(importlib.abc.Loader):
    """Python's own loader of a module of NT, with our answers to the module's imports."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name: str) -> Any:  # `get_source`, `get_data`, ...
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        # CPython looks `__import__` up in the builtins of the module that imports.
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        self._loader.exec_module(module)
        _repair(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] != _NT:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def _load() -> types.ModuleType:
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    if _NT not in sys.modules:
        # What an import of NT that failed has left behind is not attached to the new package.
        for name in [name for name in sys.modules if name.startswith(_NT + ".")]:
            del sys.modules[name]
    package = importlib.import_module(_NT)
    for name, module in list(sys.modules.items()):
        if name == _NT or name.startswith(_NT + "."):
            _repair(module)
    return package


def _relaxed(constructor):
    """A layer of NT whose formulas mix dtypes: they do so under JAX's usual promotion, also for a
    user who has set `jax_numpy_dtype_promotion` to "strict".
    """

    def relaxed(fn):
        @functools.wraps(fn)
        def relaxed_fn(*args, **kwargs):
            with jax.numpy_dtype_promotion("standard"):
                return fn(*args, **kwargs)

        return relaxed_fn

    @functools.wraps(constructor)
    def new_constructor(*args, **kwargs):
        init_fn, apply_fn, kernel_fn = constructor(*args, **kwargs)
        return init_fn, relaxed(apply_fn), relaxed(kernel_fn)

    return new_constructor


_load()

import neural_tangents as nt  # noqa: E402
from neural_tangents import Kernel as Kernel  # noqa: E402
from neural_tangents import stax as _nt_stax  # noqa: E402

_MIX_DTYPES = ("ElementwiseNumerical", "Hermite", "Polynomial", "RectifiedMonomial")
nt_stax: Any = _View(_nt_stax, **{name: _relaxed(getattr(_nt_stax, name)) for name in _MIX_DTYPES})

__all__ = ["MIN_JAX", "NT_VERSION", "Kernel", "nt", "nt_stax"]
