"""Operators small enough to be decomposed."""

import numpy as np
import scipy.sparse


def dense_operator(n=40, condition=30.0, seed=0):
    """A symmetric matrix with eigenvalues from 0.2 to 0.2 `condition`."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    values = 0.2 * np.geomspace(1, condition, n)
    return (q * values) @ q.T


def sparse_operator(n, seed=0, shift=0.3):
    """A random symmetric matrix, off-diagonal entries of both signs, diagonally dominant."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, n, (2, 2 * n))
    a = scipy.sparse.coo_array((rng.normal(size=2 * n), (rows, columns)), shape=(n, n)).tocsr()
    a = a + a.T
    a = a - scipy.sparse.diags_array(a.diagonal())
    return (a + scipy.sparse.diags_array(abs(a).sum(axis=1) + shift)).tocsr()
