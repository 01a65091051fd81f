"""Maps, solutions and statistics on disk: one safetensors file each, written whole or not at all.

Objects save themselves, as `FeatureMap.save` does; `load` reads them again.
"""

from ._saved import load as load
