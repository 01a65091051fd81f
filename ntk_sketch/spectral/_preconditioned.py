"""Log-determinants whose largest eigenvalues are taken out of the estimate."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse.linalg
from jax.core import Tracer

from .._typing import PRNGKey
from ..solvers._nystroem_inverse import Map, NystroemInverse
from ._estimate import Estimate
from ._operator import Operator
from ._options import Options
from ._trace import LOG, REMEDY, check_call, on_host


class _Preconditioned(scipy.sparse.linalg.LinearOperator):
    """P^(-1/2) (A + λI) P^(-1/2)."""

    def __init__(self, product: Map, nearly: NystroemInverse, n: int, penalty: float):
        self._product, self._root, self._penalty = product, nearly.root_at(penalty), penalty
        super().__init__(dtype=np.dtype(np.float64), shape=(n, n))

    def _matmat(self, v: Any) -> np.ndarray:
        turned = self._root(np.asarray(v))
        return self._root(self._product(turned) + self._penalty * turned)


def preconditioned(
    product: Map,
    nearly: NystroemInverse,
    n: int,
    penalty: float,
    key: PRNGKey,
    options: Options,
    *,
    streamed: bool,
    dtype: Any = np.float64,
    remedy: str = REMEDY,
) -> Estimate:
    """log det(A + λI) = log det P + tr log(P^(-1/2) (A + λI) P^(-1/2)).

    Args:
      product: with A (n, n).
      streamed: whether a product is a pass over examples.
      dtype: that products are rounded to.
      remedy: as of `on_host`.
    """
    operator = Operator(_Preconditioned(product, nearly, n, penalty), None, 0.0)
    operator.streamed, operator.dtype = streamed, np.dtype(dtype)
    more: dict[str, Any] = {"exact_part": nearly.log_determinant(penalty)}
    more |= {"least": 0.9 * nearly.least(penalty), "remedy": remedy, "stacklevel": 4}
    return on_host(operator, LOG, 0.0, key, options, **more)


def with_preconditioner(
    operator: Any, size: Any, shift: Any, key: PRNGKey, options: Options, rank: int
) -> Estimate:
    """The same of an operator of the user's; its rank is that of the preconditioner."""
    check_call(key, shift)
    given = Operator(operator, size, 0.0)
    if given.traced or isinstance(shift, Tracer):
        raise ValueError(
            f"rank={rank}: the preconditioner is made on the host, for values that are known; leave"
            " rank out where JAX traces the operator or the shift"
        )
    if not float(shift) > 0 or options.method != "lanczos" or options.interval is not None:
        raise ValueError(
            f"rank={rank}: the preconditioner is of an operator plus a shift above 0, for"
            f" method='lanczos' without an interval; got shift={shift!r},"
            f" method={options.method!r}, interval={options.interval!r}"
        )
    eps = float(np.finfo(given.dtype).eps)
    nearly = NystroemInverse(given.block, given.size, rank, eps)
    if nearly.rounding > float(shift):
        raise ValueError(
            f"rank={rank}: products of {given.dtype} are rounded by up to {nearly.rounding:.2g},"
            f" which the preconditioner cannot tell from shift={float(shift):.2g}: give float64, a"
            " larger shift, or no rank"
        )
    about = given.block, nearly, given.size, float(shift), key, options
    return preconditioned(*about, streamed=given.streamed, dtype=given.dtype)
