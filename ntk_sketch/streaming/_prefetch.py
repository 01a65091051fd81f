"""Items that are made in a thread of their own while those before are used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from contextlib import closing
from typing import Any, TypeVar

from ..numerics._threads import settings_of_this_thread

T = TypeVar("T")

AHEAD = 2  # items that wait to be used
_PATIENCE = 0.5  # seconds for the thread to end when its items are not wanted any more
_END = object()


def prefetched(items: Generator[T, None, None]) -> Generator[T, None, None]:
    """The items, taken from their generator by a thread; an error comes in its turn, as it is.

    Close what is returned to end the thread early: with the item that it is making. It does not
    keep the process alive.
    """
    waiting: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(AHEAD)
    stop = threading.Event()
    options = {"name": "ntk_sketch batches", "daemon": True}
    arguments = (items, waiting, stop, settings_of_this_thread())
    thread = threading.Thread(target=_fill, args=arguments, **options)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        while not waiting.empty():  # room for what the thread is about to put
            waiting.get_nowait()
        thread.join(_PATIENCE)


def _fill(items: Generator, waiting: queue.Queue, stop: threading.Event, settings: Any) -> None:
    last: tuple[Any, BaseException | None] = _END, None
    try:
        with settings(), closing(items):
            for item in items:
                waiting.put((item, None))
                if stop.is_set():
                    return
    except BaseException as error:
        last = None, error  # raised where the items are used
    waiting.put(last)
