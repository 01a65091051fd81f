"""Interfaces to other libraries: `ntk_sketch.interop.sklearn` and `ntk_sketch.interop.flax`.

Import each by its own name, since the libraries are optional.
"""
