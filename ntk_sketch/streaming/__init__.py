"""Features of any number of examples, batch by batch, from arrays or from batches of the user's."""

from ._feature_cache import FeatureCache as FeatureCache
from ._stream import stream as stream
