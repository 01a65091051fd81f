"""Checks of the arguments of `feature_map` and of its maps, made before any long work."""

import functools
import inspect

import equinox as eqx
import jax

from .. import methods
from .._typing import KERNELS
from ..methods import Method
from ..methods._variances_only import VariancesOnly
from ..stax import Layer
from ..stax._shapes import output_shape


def check_model(model) -> None:
    if not isinstance(model, Layer):
        if isinstance(model, tuple) and len(model) == 3 and all(map(callable, model)):
            raise TypeError(
                "model must be a Layer of ntk_sketch.stax, got a tuple of three functions. If you"
                " unpacked a model, give what `stax.serial` returned: `model = stax.serial(...)`,"
                " then `init_fn, apply_fn, kernel_fn = model`. A triple of neural_tangents has no"
                " features: build it with `from ntk_sketch import stax` in place of"
                " `from neural_tangents import stax`, or give it a rule by"
                " `stax.layer(triple, rule)`."
            )
        raise TypeError(
            f"model must be a Layer of ntk_sketch.stax, got {type(model).__name__}. Build it with"
            " `from ntk_sketch import stax` in place of `from neural_tangents import stax`, or give"
            " a plain NT triple a rule by `stax.layer(triple, rule)`."
        )


def check_with_nt(model: Layer, shape, dtype, get, kwargs, mask_constant=None) -> None:
    """Runs NT's own checks by tracing its `kernel_fn`, and raises NT's error with the layer's name.

    Shapes are those of two examples, or of all examples if there are call-time arguments. What
    passed is not traced again for an equal model.
    """
    constant = None if mask_constant is None else float(mask_constant)
    if kwargs or model.specification.is_traced:
        _check_with_nt(model, shape, dtype, get, constant, kwargs)
    else:
        x64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
        _passes(model, (2, *shape[1:]), dtype, get, constant, x64)


@functools.lru_cache(maxsize=512)
def _passes(model: Layer, shape, dtype, get, constant, x64: bool) -> None:
    """Raises NT's error if there is one; errors are not remembered."""
    _check_with_nt(model, shape, dtype, get, constant, {})


def _check_with_nt(model: Layer, shape, dtype, get, constant: float | None, kwargs) -> None:
    examples = jax.ShapeDtypeStruct(shape, dtype)
    pattern, others = kwargs.get("pattern"), {k: v for k, v in kwargs.items() if k != "pattern"}
    if constant is not None:
        others["mask_constant"] = constant

    def kernels(x, pattern):
        graphs = {} if pattern is None else {"pattern": (pattern, pattern)}
        with jax.numpy_dtype_promotion("standard"):  # NT divides by integers
            return model[2](x, None, get, **graphs, **others)

    try:
        out = eqx.filter_eval_shape(kernels, examples, pattern)
    except Exception as error:
        where = _layer_of(error)
        cause = error
        if where == f"In layer {model.name}.":  # shapes that do not fit: `init_fn` knows where
            try:
                output_shape(model, examples.shape)
            except Exception as init_error:
                where, cause = _layer_of(init_error), init_error
        if not where:
            raise
        # A graph that does not fit, or windows without positions: our rules say why.
        if "In layer Aggregate(" in where or isinstance(error, ZeroDivisionError):
            model.rule.needs(None, examples.shape, method=VariancesOnly(), **kwargs)
        shape = f"(n, {', '.join(map(str, shape[1:]))})"
        message = f"{where} Neural Tangents refuses inputs of shape {shape}: {cause}"
        message += _remedy(where, error, examples, kernels, pattern)
        kinds = (NotImplementedError, TypeError)
        raise next((k for k in kinds if isinstance(cause, k)), ValueError)(message) from error
    if not all(hasattr(getattr(out, name, None), "shape") for name in get):
        raise ValueError(
            "the model has several outputs; join them (FanInSum, FanInConcat) for a feature map."
        )


def _remedy(where: str, error: Exception, examples: jax.ShapeDtypeStruct, kernels, pattern) -> str:
    """Advice for frequent errors of NT that give none; empty for others."""
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return (
            ". JAX traces the functions of a layer: write them with jax.numpy and jax.scipy, such"
            " as jnp.tanh for np.tanh."
        )
    if "In layer Elementwise(" in where:
        return (
            ". A function alone has no kernel in closed form: use stax.ElementwiseNumerical(fn,"
            " deg=25, df=fn_derivative), which integrates it."
        )
    if "In layer Aggregate(" in where:
        return f". pattern must hold one graph for each of the {examples.shape[0]} examples."
    one_channel = jax.ShapeDtypeStruct((*examples.shape, 1), examples.dtype)
    try:
        eqx.filter_eval_shape(kernels, one_channel, pattern)
    except Exception:
        return ""
    return ". If the axis of channels is missing, add it: x[..., None]."


def _layer_of(error: Exception) -> str:
    """The note naming the layer in which an error arose; empty if there is none."""
    notes = getattr(error, "__notes__", ())
    return next((note for note in notes if note.startswith("In layer ")), "")


def check_method(method) -> None:
    if isinstance(method, Method):
        return
    kinds = [kind for kind in vars(methods).values() if inspect.isclass(kind)]
    known = sorted(
        kind.__name__ for kind in kinds if issubclass(kind, Method) and not inspect.isabstract(kind)
    )
    raise TypeError(
        f"method must be an instance of one of {', '.join(known)}, such as RandomFeatures(1024);"
        f" got {method!r}."
    )


def checked_call_arguments(kwargs: dict, taken: frozenset[str]) -> dict:
    """NT's call-time arguments without those that are `None`; some layer must take each of them."""
    given = {name: value for name, value in kwargs.items() if value is not None}
    if unknown := sorted(set(given) - taken):
        names = ", ".join(sorted(taken)) or "none"
        raise TypeError(
            f"unknown argument {unknown[0]!r}: no layer of this model takes it. Call-time arguments"
            f" that its layers take: {names}."
        )
    return given


def checked_get(get) -> tuple[str, ...]:
    names = (get,) if isinstance(get, str) else tuple(get)
    unknown = [name for name in names if name not in KERNELS]
    if unknown or not names:
        raise ValueError(f"get={get!r}; known kernels are {', '.join(KERNELS)}.")
    return names
