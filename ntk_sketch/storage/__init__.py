"""Storage of maps, solutions and statistics: one safetensors file each, written atomically.

Objects have a method `save`, such as `FeatureMap.save`; `load` reads all of them.
"""

from ._saved import load as load
