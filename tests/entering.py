"""The input features of a model's nonlinearities, for tests of a single nonlinearity."""

import jax

import ntk_sketch as ns
from ntk_sketch.features._rooted import formed


def entering(model, x):
    """`[(dual, features), ...]`, one for each nonlinearity, exact below it."""
    seen = []

    class Watched(ns.Exact):
        def expand(self, dual, features, **rest):
            seen.append((dual, features))
            return super().expand(dual, features, **rest)

    ns.feature_map(model, x, Watched(), key=jax.random.key(0))
    return seen


def expanded(expansion, dual, features):
    """What an expansion makes of features, given the exact variances behind its nonlinearity."""
    here = ((0,),) * len(features.space)
    return tuple(map(formed, expansion(features, features.variances.nonlinearity(dual, here))))
