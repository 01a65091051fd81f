"""Methods: how the kernel of a nonlinearity becomes features.

Linear layers are exact under every method, with one exception: patches of patches that are too
long to be formed are projected on fewer features (`Method.compresses`).
"""

from ._exact import Exact as Exact
from ._gegenbauer import Gegenbauer as Gegenbauer
from ._leverage_score import LeverageScore as LeverageScore
from ._method import Method as Method
from ._nystroem import Nystroem as Nystroem
from ._poly_sketch import PolySketch as PolySketch
from ._random_features import RandomFeatures as RandomFeatures
