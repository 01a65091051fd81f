"""Features of examples: `HiddenFeatures` between layers, `Features` at the output of a map."""

from ._features import Features as Features
from ._hidden import HiddenFeatures as HiddenFeatures
