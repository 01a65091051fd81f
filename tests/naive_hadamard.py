"""Hadamard transforms from their definition: the oracle of the dense sketches."""

import numpy as np


def naive_hadamard(d):
    """From the definition, entry by entry."""
    h = np.empty((d, d))
    for i in range(d):
        for j in range(d):
            h[i, j] = (-1) ** bin(i & j).count("1")
    return h


def naive_rows(transform, x):
    """`P H D x` of one `RandomHadamard` and one vector, in loops."""
    signs, rows = np.asarray(transform.signs), np.asarray(transform.rows)
    h = naive_hadamard(1 << (len(signs) - 1).bit_length())
    return np.array([sum(h[i, j] * signs[j] * x[j] for j in range(len(signs))) for i in rows])
