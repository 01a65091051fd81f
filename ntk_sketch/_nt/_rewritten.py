"""Rewritten functions of NT that rely on removed internals of JAX."""

import functools
import inspect
import math
import sys
import types

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad

from ._versions import NT
from ._views import View


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
    # The rule instead of `linear_transpose`: NT trims `invals` to shapes that `bind` refuses.
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

    JAX now leaves such equations in linear jaxprs, but NT assumes that every equation is linear.
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
    # Only the fields that NT reads: the constructor of `Jaxpr` changes between versions.
    split = types.SimpleNamespace(
        constvars=list(known), invars=jaxpr.invars, outvars=jaxpr.outvars, eqns=eqns
    )
    return split, list(known.values())


def _get_primals_out_and_pullback(fn, mode, _j_rules, _s_rules, _fwd, *primals_in):
    """NT's function of this name, through `jax.linearize` instead of its internals."""
    empirical = sys.modules[NT + "._src.empirical"]
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
    """NT's function of this name; `cost_analysis()` returned a list in older versions."""
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


def _pos_emb_pdist(shape, pos_emb_p_norm, pos_emb_decay_fn):
    """NT's function of this name, with distances as floats, for strict promotion."""
    if pos_emb_decay_fn is None:
        return sys.modules[NT + "._src.stax.linear"]._pos_emb_identity(shape)
    ndim, total = len(shape), jnp.zeros((1,) * (2 * len(shape)))
    for axis, size in enumerate(shape):
        places = jnp.arange(size, dtype=total.dtype)
        apart = jnp.abs(places[:, None] - places[None, :]) ** pos_emb_p_norm
        total += apart.reshape((1,) * (2 * axis) + apart.shape + (1,) * (2 * (ndim - axis - 1)))
    return pos_emb_decay_fn(total)


REWRITTEN = {
    NT + "._src.empirical": {
        "_eqn_vjp_fn": _eqn_vjp_fn,
        "_get_flops": _get_flops,
        "_get_primals_out_and_pullback": _get_primals_out_and_pullback,
        # Both are called on abstract values too, which `jax.numpy` refuses.
        "jnp": View(jnp, size=lambda x: math.prod(jnp.shape(x)), dtype=jnp.result_type),
    },
    # Pools divide by it: strict promotion refuses the dtype of a NumPy integer.
    NT + "._src.stax.linear": {
        "_pos_emb_pdist": _pos_emb_pdist,
        "np": View(np, prod=math.prod),
    },
}


def by_position(fn: jax.custom_jvp):
    """The same function with all arguments passed by position.

    JAX counts a static argument that is passed by keyword as dynamic, and raises under
    `jax_enable_checks`.
    """
    signature = inspect.signature(fn)

    @functools.wraps(fn)
    def positional(*args, **kwargs):
        return fn(*signature.bind(*args, **kwargs).args)

    return positional
