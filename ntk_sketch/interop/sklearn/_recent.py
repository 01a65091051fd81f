"""A cache of feature maps and statistics, shared by fits that differ only in `alpha`."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Hashable
from typing import Any

import jax

_BYTES = 1 << 29


class Recent:
    """A thread-safe cache of the most recently used objects, up to 512 MiB."""

    def __init__(self, budget: int = _BYTES):
        self._budget = budget
        self._made: collections.OrderedDict[Hashable, tuple[Any, int]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The object of this key, or a new one by `make`; nothing is kept if the key is None."""
        if key is None:
            return make()
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key][0]
        made = make()
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(made) if hasattr(leaf, "nbytes"))
        with self._lock:
            self._made[key] = made, size
            while self._made and sum(size for _, size in self._made.values()) > self._budget:
                self._made.popitem(last=False)
        return made

    def clear(self) -> None:
        with self._lock:
            self._made.clear()
