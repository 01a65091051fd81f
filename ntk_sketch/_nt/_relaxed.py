"""Layers of NT whose formulas mix dtypes."""

import functools

import jax


def relaxed(constructor):
    """A layer of NT whose formulas mix dtypes: they do so under JAX's usual promotion, also for a
    user who has set `jax_numpy_dtype_promotion` to "strict".
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
