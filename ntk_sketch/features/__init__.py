"""What flows from layer to layer, feature vectors of every position with their exact variances; and
what comes out in the end.
"""

from ._features import Features as Features
from ._hidden import HiddenFeatures as HiddenFeatures
