"""`empirical_feature_map`: makes a feature map from a network and its parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .._arguments import checked_inputs, checked_integer, checked_key
from .._typing import KERNELS, Inputs, PRNGKey
from ..maps._checks import checked_get
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
    r"""Makes a map to features of the empirical NTK and NNGP kernel of any JAX function.

    Use this for a network with given parameters, trained or not: to predict the result of
    linearised training (fine-tuning) from these parameters with more examples than an n x n kernel
    or a Jacobian allows, or for architectures whose kernel has no formula in Neural Tangents. For
    infinitely wide networks use `ntk_sketch.feature_map`.

    With T traced outputs `f_t` and a random matrix S of `width` rows, the features of an example
    are

        z(x) = [S ∇f_1(x), ..., S ∇f_T(x)] / √T,    <z(x), z(x')> ≈ Θ(x, x'),
        Θ(x, x') = (1/T) Σ_t <∇f_t(x), ∇f_t(x')>,

    where gradients are with respect to all parameters, as in `nt.empirical_ntk_fn(apply_fn)`. The
    `nngp` features are the outputs over √T, exactly those of `nt.empirical_nngp_fn`. There are two
    kinds of S. Neither S nor the Jacobian of a batch is ever stored.

    * `mode='forward'`: rows are independent random signs, used in `width` Jacobian-vector products
      of all outputs (`jax.linearize`). If `width` reaches the number of parameters, rows are unit
      vectors and features are the exact Jacobian.
    * `mode='reverse'`: a subsampled randomised Hadamard transform of the gradient of one output
      after the other (`jax.vjp`), in blocks of 32,768 parameters. If `width` reaches the number of
      parameters, rounded up to a power of two, it is orthogonal and features are exact.

    A larger `width` gives no more rows.

    *Error.* Let `Θ_ts(x, x') = <∇f_t(x), ∇f_s(x')>`. Both modes are unbiased, and

        Var <z(x), z(x')> <= (1 / width) (1/T²) Σ_ts [Θ_ts(x, x) Θ_ts(x', x')
                                                      + Θ_ts(x, x') Θ_st(x, x')],

    which for one output is `(Θ(x, x) Θ(x', x') + Θ(x, x')²) / width`. The kernel matrix K of some
    examples then has an expected squared Frobenius error of at most `(tr(K)² + ‖K‖²) / width`, and
    a relative error of `√((1 + tr(K)² / ‖K‖²) / width)`. With more outputs the former is below `2
    tr(K)² / width`, and T times smaller if their gradients are orthogonal. For p features in total
    choose a `width` of p / T.

    *Cost* for each example, in forward passes of the network: about `width` in forward mode; in
    reverse mode 3 for each output, plus 192 FLOPs for each output and parameter for the sketch.
    *Memory* besides parameters and features: in forward mode that of a gradient of the batch (the
    network's intermediate values) and of some products; in reverse mode that of a few gradients of
    one output of one example, at least about four times the parameters.

    Args:
        apply_fn: `apply_fn(params, x, **kwargs)`, which maps a batch of examples x (n, ...) to
            outputs (n, ..., outputs): that of a `stax` network, `model.apply` of a `flax.linen`
            module, or as below. Each example is evaluated separately, as with `vmap_axes=0` in
            Neural Tangents, so that batch normalisation must be in test mode. Give integer inputs
            (tokens) as floats and cast them in `apply_fn`.
        params: a pytree of floating point arrays, all of which are differentiated.
        width: number of rows of S. Raise it for a smaller error. Time grows with it in forward
            mode, hardly in reverse mode; the cost of everything that uses the features grows too.
        key: of `jax.random`. The same key gives the same S.
        x: example inputs (n, ...) or their `jax.ShapeDtypeStruct`; only shape and dtype are used.
        trace_axes: axes of the outputs (n, ..., outputs) that the kernel is a mean over, as in
            `nt.empirical_ntk_fn`: `-1` for the outputs of a classifier. `ntk_sketch.ridge` needs
            all axes but 0. With `()` features are (n, ..., outputs, width).
        diagonal_axes: axes along which `kernel_fn` has only pairs of equal positions. Features do
            not depend on it.
        get: 'ntk', 'nngp' or both.
        mode: 'forward' or 'reverse'. None: the mode that the network can be differentiated in and,
            of both, the one with fewer FLOPs, which is reverse mode for few outputs.
        memory_bytes: the budget for products or gradients that are computed at one time, and the
            default of `batch_size()`. None: as there. At least one is computed at a time.
        **kwargs: keyword arguments of `apply_fn`, the same for all examples, such as `rng=key` for
            a network with dropout, or `train=False`.

    Returns:
        An `EmpiricalFeatureMap`: `z = feature_map(x)`,
        `z.ntk @ z.ntk.T ≈ nt.empirical_ntk_fn(apply_fn)(x, None, params)`.

    Raises:
        TypeError: parameters are not floating point arrays (the message has their path); `apply_fn`
            holds arrays or returns no array; examples are not floating point.
        ValueError: outputs or axes do not fit; parameters are NaN or infinite.
        NotImplementedError: axis 0, that of examples, is among the axes.
        Errors of `apply_fn` itself have a note on how it was called.

    Source: Novak, Sohl-Dickstein and Schoenholz, Fast Finite Width Neural Tangent Kernel, ICML 2022
    (arXiv 2206.08720) for the two modes of differentiation; Tropp 2011 (arXiv 1011.1595) for the
    transform.

    Example: a network of Neural Tangents. For equinox use `params, static = eqx.partition(model,
    eqx.is_inexact_array)` and `lambda params, x: jax.vmap(eqx.combine(params, static))(x)`; for
    `flax.nnx` use `graph, params = nnx.split(model)` and `lambda params, x: nnx.merge(graph,
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
