"""Streaming: features of any number of examples, batch by batch, from arrays or loaders."""

from ._feature_cache import FeatureCache as FeatureCache
from ._stream import stream as stream
