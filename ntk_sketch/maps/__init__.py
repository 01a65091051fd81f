"""`feature_map` makes a `FeatureMap` from a model and a method."""

from ._feature_map import FeatureMap as FeatureMap
from ._making import feature_map as feature_map
from ._transforms import mirrored as mirrored
