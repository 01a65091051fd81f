"""How far a pass over examples has come."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tqdm.auto import tqdm

#: `None`: a bar on a terminal, if the pass takes more than a second. `True`: a bar. `False`: none.
#: A function: called after every batch with its number of examples.
Progress = bool | Callable[[int], Any] | None


@contextlib.contextmanager
def reporting(
    progress: Progress, total: int | None, what: str, unit: str = " examples"
) -> Iterator[Callable[[int], Any]]:
    """What to call with the number of examples that are done.

    Raises:
      TypeError: `progress` is of no such kind.
    """
    if callable(progress):
        yield progress
        return
    if progress is not None and not isinstance(progress, bool | np.bool_):
        raise TypeError(
            f"progress={progress!r}; needed: True, False, None (a bar on a terminal), or a function"
            " that is called with the number of examples of each batch"
        )
    terminal = sys.stderr.isatty()
    if not progress and (progress is not None or not terminal):
        yield lambda count: None
        return
    with tqdm(
        total=total,
        desc=what,
        unit=unit,
        delay=1.0 if progress is None else 0.0,
        mininterval=0.2 if terminal else 10.0,
        smoothing=0.05,
    ) as bar:
        yield bar.update
