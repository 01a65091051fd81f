"""`empirical_feature_map`: a network and its parameters become a map from examples to features."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .._arguments import checked_inputs, checked_integer, checked_key
from .._typing import Inputs, PRNGKey
from ..maps._checks import KERNELS, checked_get
from . import _checks
from ._at_once import shapes
from ._axes import checked_axes
from ._choosing import drawn_way
from ._empirical_map import EmpiricalFeatureMap
from ._network import Network


def empirical_feature_map(
    apply_fn: Callable,
    params: Any,
    width: int,
    *,
    key: PRNGKey,
    x: Inputs | jax.ShapeDtypeStruct,
    trace_axes: int | Sequence[int] = (-1,),
    diagonal_axes: int | Sequence[int] = (),
    get: str | Sequence[str] = KERNELS,
    mode: str | None = None,
    memory_bytes: int | None = None,
    **kwargs,
) -> EmpiricalFeatureMap:
    r"""Features of the empirical kernels of a finite network, of any JAX function.

    Use it for a network that is there, at its initialisation or trained: to predict what
    linearised training (fine-tuning) from these parameters gives, on more examples than an n x n
    kernel or a Jacobian allows; for kernels of architectures that Neural Tangents has no formula
    for. For infinitely wide networks use `ntk_sketch.feature_map`.

    With T traced outputs `f_t` and a random matrix S of `width` rows, features of an example are

        z(x) = [S ∇f_1(x), ..., S ∇f_T(x)] / √T,    <z(x), z(x')> ≈ Θ(x, x'),
        Θ(x, x') = (1/T) Σ_t <∇f_t(x), ∇f_t(x')>,

    gradients being those by all parameters: `nt.empirical_ntk_fn(apply_fn)`. `nngp` features are
    the outputs over √T, exactly those of `nt.empirical_nngp_fn`. S is one of two, and neither the
    Jacobian of a batch nor S is ever there as a matrix:

    * `mode='forward'`: rows of independent signs, as `width` Jacobian-vector products of all
      outputs at once (`jax.linearize`). With `width` as many as the parameters the rows are unit
      vectors and the features are exact, the Jacobian itself.
    * `mode='reverse'`: a subsampled randomised Hadamard transform of the gradients of one output
      after the other (`jax.vjp`), in blocks of 32,768 parameters. With `width` as many as the
      parameters, filled up to a power of two, it is orthogonal and the features are exact.

    More rows than that there are none.

    *Error.* With `Θ_ts(x, x') = <∇f_t(x), ∇f_s(x')>` both are unbiased, and for both

        Var <z(x), z(x')> <= (1 / width) (1/T²) Σ_ts [Θ_ts(x, x) Θ_ts(x', x')
                                                      + Θ_ts(x, x') Θ_st(x, x')],

    for one output `(Θ(x, x) Θ(x', x') + Θ(x, x')²) / width`. The kernel K of some examples then has
    an expected squared Frobenius error of at most `(tr(K)² + ‖K‖²) / width`, a relative one of
    `√((1 + tr(K)² / ‖K‖²) / width)`. With more outputs the former is below `2 tr(K)² / width`, and
    T times smaller where their gradients are orthogonal. For p features in all ask for a `width` of
    p / T.

    *Cost* for each example, in forward passes of the network: about `width` in forward mode, and
    in reverse mode 3 for each output, plus 192 FLOPs for each output and parameter for the sketch.
    *Memory* beside parameters and features: in forward mode that of a gradient of the batch (the
    network's intermediate values), plus some products at a time; in reverse mode a few gradients
    of one output of one example, whatever the batch: about four times the parameters at least.

    Args:
        apply_fn: `apply_fn(params, x, **kwargs)`, outputs (n, ..., outputs) of a batch of examples
            x (n, ...): of `stax`, `model.apply` of a `flax.linen` module, or as below. Each example
            is evaluated alone, as with `vmap_axes=0` in Neural Tangents; batch normalisation has
            to be in its test mode. Integer inputs (tokens) are given as floats and cast in it.
        params: a pytree of floating point arrays, all of which are differentiated.
        width: rows of S. More cost time in proportion in forward mode, and next to nothing in
            reverse mode. Wider features make whatever uses them dearer.
        key: of `jax.random`. The same key gives the same S.
        x: example inputs (n, ...), or their `jax.ShapeDtypeStruct`: shape and dtype are looked at.
        trace_axes: axes of the outputs (n, ..., outputs) that the kernel is a mean over, as in
            `nt.empirical_ntk_fn`: `-1`, the outputs of a classifier. `ntk_sketch.ridge` needs all
            of them but axis 0. `()`: none, and features (n, ..., outputs, width).
        diagonal_axes: axes of which kernels have only pairs of equal positions. Features are the
            same: it is what `kernel_fn` pairs.
        get: 'ntk', 'nngp' or both.
        mode: 'forward' or 'reverse'; None: what takes fewer FLOPs, which is reverse mode for few
            outputs, or what the network has a derivative for.
        memory_bytes: what products or gradients that are computed at one time may take, and what
            `batch_size()` goes by. None: as said there. One at a time is the least.
        **kwargs: of `apply_fn`, the same for all examples: `rng=key` for a network with dropout,
            `train=False`.

    Returns:
        An `EmpiricalFeatureMap`: `z = feature_map(x)`,
        `z.ntk @ z.ntk.T ≈ nt.empirical_ntk_fn(apply_fn)(x, None, params)`.

    Raises:
        TypeError: parameters that are not floating point arrays, with their place; an `apply_fn`
            that holds arrays or returns no array; examples that are not floating point.
        ValueError: outputs or axes that do not fit; parameters that are NaN or infinite.
        NotImplementedError: axis 0, that of examples, among the axes.
        What `apply_fn` itself raises is passed on, with a note on how it was called.

    Source: Novak, Sohl-Dickstein and Schoenholz, Fast Finite Width Neural Tangent Kernel, ICML 2022
    (arXiv 2206.08720) for the two ways of differentiation; Tropp 2011 (arXiv 1011.1595) for the
    transform.

    Example: a network of Neural Tangents; one of equinox is `params, static = eqx.partition(model,
    eqx.is_inexact_array)` with `lambda params, x: jax.vmap(eqx.combine(params, static))(x)`, one of
    `flax.nnx` `graph, params = nnx.split(model)` with `lambda params, x: nnx.merge(graph,
    params)(x)`.

        >>> import jax
        >>> import neural_tangents as nt
        >>> import numpy as np
        >>> import ntk_sketch as ns
        >>> from ntk_sketch import stax
        >>> init_fn, apply_fn, _ = stax.serial(stax.Dense(32), stax.Erf(), stax.Dense(2))
        >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
        >>> _, params = init_fn(jax.random.key(0), x.shape)
        >>> features = ns.empirical.empirical_feature_map(
        ...     apply_fn, params, 256, key=jax.random.key(1), x=x)
        >>> z = features(x)
        >>> z.nngp.shape, z.ntk.shape
        ((50, 2), (50, 512))
        >>> exact = nt.empirical_ntk_fn(apply_fn)(x, None, params)
        >>> error = np.linalg.norm(z.ntk @ z.ntk.T - exact) / np.linalg.norm(exact)
        >>> bool(error < 0.1)
        True
    """
    _checks.check_apply_fn(apply_fn)
    width = checked_integer(width, "width")
    checked_key(key)
    get = checked_get(get)
    params = _checks.checked_params(params)
    if memory_bytes is not None:
        checked_integer(memory_bytes, "memory_bytes")
    x = shapes(checked_inputs(x, values=False))
    x = jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))
    network = Network.of(apply_fn, kwargs)
    _checks.check_kwargs(network)
    outputs = _checks.checked_outputs(network, params, x)
    axes = checked_axes(trace_axes, diagonal_axes, outputs)
    n_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    way = drawn_way(mode, n_params, width, network, params, x, key)
    settings = (tuple(x.shape[1:]), get, str(x.dtype), memory_bytes)
    return EmpiricalFeatureMap(network, params, way, axes, *settings)
