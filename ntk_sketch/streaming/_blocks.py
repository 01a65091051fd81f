"""Examples in blocks of one number of rows, and their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from .._typing import Inputs

_DIGEST_BYTES = 8


class Block(NamedTuple):
    """Examples `start` to `stop - 1` of a pass.

    Attributes:
      x: inputs, behind the last one copies of it up to the rows of all blocks.
      y: targets (stop - start, k) on the host, or None.
      sample_weight: (stop - start,) on the host, or None.
      digest: of the three, if digests were asked for.
    """

    start: int
    stop: int
    x: Any
    y: Float[np.ndarray, "m k"] | None = None
    sample_weight: Float[np.ndarray, " m"] | None = None
    digest: bytes = b""


def blocks_of(
    x: Inputs,
    y: Float[np.ndarray, "n k"] | None,
    rows: int,
    order: Int[np.ndarray, " m"] | None = None,
    sample_weight: Float[np.ndarray, " n"] | None = None,
) -> Iterator[Block]:
    """Of `x[order]` and `y[order]`: copies of `rows` examples at a time, whatever holds them."""
    n = len(x) if order is None else len(order)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        index = np.minimum(np.arange(start, start + rows), n - 1)
        index = index if order is None else order[index]
        real = index[: stop - start]
        targets = None if y is None else y[real].astype(np.float64)
        weights = None if sample_weight is None else sample_weight[real]
        yield Block(start, stop, x[index], targets, weights)


def placed(blocks: Iterator[Block], done: Sequence[bytes] | None) -> Generator[Block, None, None]:
    """The blocks with their inputs on the device.

    Args:
      done: digests of the first blocks, which are compared and left out; None: no digests.

    Raises:
      ValueError: other examples than those of the digests.
    """
    number = 0
    for block in blocks:
        if done is not None:
            block = block._replace(digest=_digest(block))
            if number < len(done):
                _check_same(block, done[number])
                number += 1
                continue
        yield block._replace(x=jax.device_put(block.x))
    if done is not None and number < len(done):
        raise ValueError(
            f"the data end after {number} blocks, and {len(done)} were done before: they are other"
            " data, or fewer"
        )


def _digest(block: Block) -> bytes:
    found = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for array in (block.x[: block.stop - block.start], block.y, block.sample_weight):
        if array is not None:
            found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.digest()


def _check_same(block: Block, digest: bytes) -> None:
    if block.digest != digest:
        raise ValueError(
            f"examples {block.start} to {block.stop - 1} are not those of the run before: other"
            " data, or in another order (a loader that shuffles needs the same seed every time)"
        )
