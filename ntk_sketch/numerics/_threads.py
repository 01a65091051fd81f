"""Threads with the JAX settings of the thread that starts them, and delayed interrupts."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import jax

from ._precision import x64


def settings_of_this_thread() -> Callable[[], AbstractContextManager[None]]:
    """A context for another thread, with this thread's `jax_enable_x64` and default device."""
    has_x64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]

    @contextlib.contextmanager
    def settings():
        with x64(has_x64), jax.default_device(device):
            yield

    return settings


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delays Ctrl-C to the end of the block, so that the block is completed.

    Only the main thread is interrupted; in other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler: Any = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # it was not set by Python, or Ctrl-C is ignored
        yield
        return
    pressed: list[tuple] = []
    signal.signal(signal.SIGINT, lambda *arguments: pressed.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed:
            handler(*pressed[0])
