"""Features as layers of Flax: `pip install "ntk-sketch[flax]"`.

FeatureModule   a feature map as an `nnx.Module`, frozen or trainable; by `nnx.bridge.to_linen` as a
                linen module
train_head      a linear or softmax head on features (and the map itself, if it is asked for),
                trained by optax on batches
"""

from .._extras import check_installed as _check_installed

_check_installed("flax", "flax", "optax")

from ._feature_module import FeatureModule as FeatureModule
from ._train_head import train_head as train_head
