"""The features that enter the nonlinearities of a model, for tests of what happens inside one."""

import jax

import ntk_sketch as ns


def entering(model, x):
    """`[(dual, features), ...]`, one for each nonlinearity, exact below it."""
    seen = []

    class Watched(ns.Exact):
        def expand(self, dual, features, **rest):
            seen.append((dual, features))
            return super().expand(dual, features, **rest)

    ns.feature_map(model, x, Watched(), key=jax.random.key(0))
    return seen
