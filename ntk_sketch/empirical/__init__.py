"""Features of finite networks: the empirical NTK of any JAX function, sketched."""

from ._empirical_map import EmpiricalFeatureMap as EmpiricalFeatureMap
from ._making import empirical_feature_map as empirical_feature_map
