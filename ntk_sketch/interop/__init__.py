"""Faces to other libraries. Each is imported by its own name, as its library is optional:
`ntk_sketch.interop.sklearn`, `ntk_sketch.interop.flax`.
"""
