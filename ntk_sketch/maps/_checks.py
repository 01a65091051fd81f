"""What `feature_map` and its maps refuse, before any long work."""

import inspect

import jax
import numpy as np

from .. import methods
from ..methods import Method
from ..stax import Layer
from ..stax._combinators import output_shape

KERNELS = ("nngp", "ntk")


def check_model(model) -> None:
    if not isinstance(model, Layer):
        raise TypeError(
            f"model must be a Layer of ntk_sketch.stax, got {type(model).__name__}. Build it with"
            " `from ntk_sketch import stax` in place of `from neural_tangents import stax`, or give"
            " a plain NT triple a rule by `stax.layer(triple, rule)`."
        )


def check_with_nt(model: Layer, shape, dtype, get, kwargs) -> None:
    """Whatever NT refuses is refused here, by NT's own checks on shapes alone."""
    two = jax.ShapeDtypeStruct((2, *shape), dtype)
    if kwargs.get("pattern") is not None:  # NT wants the graphs of both batches, here of two each
        pattern = kwargs["pattern"]
        graphs = np.asarray(pattern[0] if isinstance(pattern, tuple) else pattern)
        kwargs = kwargs | {"pattern": (np.zeros_like(graphs, shape=(2, *graphs.shape[1:])),) * 2}
    try:
        out = jax.eval_shape(lambda x: model[2](x, None, get, **kwargs), two)
    except Exception as error:
        where = _layer_of(error)
        cause = error
        if where == f"In layer {model.name}.":  # shapes that do not fit: `init_fn` knows where
            try:
                output_shape(model, (2, *shape))
            except Exception as init_error:
                where, cause = _layer_of(init_error), init_error
        if not where:
            raise
        shape = f"(n, {', '.join(map(str, shape))})"
        message = f"{where} Neural Tangents refuses inputs of shape {shape}: {cause}"
        message += _remedy(model, where, two, get, kwargs)
        kinds = (NotImplementedError, TypeError)
        raise next((k for k in kinds if isinstance(cause, k)), ValueError)(message) from error
    if not all(hasattr(getattr(out, name, None), "shape") for name in get):
        raise ValueError(
            "the model has several outputs; join them (FanInSum, FanInConcat) for a feature map."
        )


def _remedy(model: Layer, where: str, two: jax.ShapeDtypeStruct, get, kwargs) -> str:
    """What to do about frequent refusals that do not say so themselves."""
    if "In layer Elementwise(" in where:
        return (
            ". A function alone has no kernel in closed form: use stax.ElementwiseNumerical(fn,"
            " deg=25, df=fn_derivative), which integrates it."
        )
    if "In layer Aggregate(" in where and kwargs.get("pattern") is None:
        return ". Its graph is missing: pass pattern=... to feature_map and to every call."
    one_channel = jax.ShapeDtypeStruct((*two.shape, 1), two.dtype)
    try:
        jax.eval_shape(lambda x: model[2](x, None, get, **kwargs), one_channel)
    except Exception:
        return ""
    return ". If the axis of channels is missing, add it: x[..., None]."


def _layer_of(error: Exception) -> str:
    """The note that says in which layer an error arose; empty if there is none."""
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
    """NT's call-time arguments, those of `None` left out: some layer must take each."""
    given = {name: value for name, value in kwargs.items() if value is not None}
    if "mask_constant" in given:
        raise NotImplementedError(
            "masking (mask_constant) is not supported by features; the exact kernel_fn has it."
        )
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
