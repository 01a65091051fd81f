"""Imported first, so that the test modules can import Neural Tangents like anybody after it."""

import ntk_sketch  # noqa: F401
