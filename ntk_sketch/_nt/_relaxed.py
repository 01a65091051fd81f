"""Layers of NT whose formulas mix dtypes."""

import functools

import jax


def relaxed(constructor):
    """A constructor of NT whose formulas mix dtypes, made to run under JAX's standard promotion
    even if the user has set `jax_numpy_dtype_promotion` to "strict".
    """

    def relaxed_function(fn):
        @functools.wraps(fn)
        def relaxed_fn(*args, **kwargs):
            with jax.numpy_dtype_promotion("standard"):
                return fn(*args, **kwargs)

        return relaxed_fn

    @functools.wraps(constructor)
    def new_constructor(*args, **kwargs):
        init_fn, apply_fn, kernel_fn = constructor(*args, **kwargs)
        return init_fn, relaxed_function(apply_fn), relaxed_function(kernel_fn)

    return new_constructor
