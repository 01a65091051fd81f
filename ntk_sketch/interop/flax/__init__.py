"""Features as layers of Flax: `pip install "ntk-sketch[flax]"`.

FeatureModule   a feature map as an `nnx.Module`, frozen or trainable; by `nnx.bridge.to_linen` as a
                linen module
"""

from ._feature_module import FeatureModule as FeatureModule
