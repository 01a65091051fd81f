"""Counts what JAX compiles."""

import contextlib

import jax


class Programs:
    """`count`: programs compiled so far inside the block."""

    count = 0


@contextlib.contextmanager
def compiled():
    """`with compiled() as programs: ...; programs.count`."""
    programs, listening = Programs(), [True]

    def listener(event, duration, **_):
        if listening[0] and event == "/jax/core/compile/backend_compile_duration":
            programs.count += 1

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        yield programs
    finally:
        listening[0] = False  # JAX has no public function to take a listener away
