"""Sketched features of the empirical NTK of finite networks, for any JAX function.

Use this for a network with given parameters, and `ntk_sketch.feature_map` for infinite width.
"""

from ._empirical_map import EmpiricalFeatureMap as EmpiricalFeatureMap
from ._making import empirical_feature_map as empirical_feature_map
