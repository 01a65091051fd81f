"""Feature maps for the NNGP kernel and the NTK of infinitely wide networks.

`feature_map` makes features whose inner products approximate either kernel; `ridge` and `predict`
fit and predict with them. All of it costs time linear in the number of examples.

    x → Features → Gram → weights → predictions
"""

from . import _nt  # first: it makes Neural Tangents importable
from . import empirical as empirical
from . import predict as predict
from . import spectral as spectral
from . import stax as stax
from . import subset as subset
from ._version import __version__ as __version__
from .diagnostics import approximation_error as approximation_error
from .features import Features as Features
from .maps import FeatureMap as FeatureMap
from .maps import feature_map as feature_map
from .methods import Exact as Exact
from .methods import Gegenbauer as Gegenbauer
from .methods import LeverageScore as LeverageScore
from .methods import Nystroem as Nystroem
from .methods import PolySketch as PolySketch
from .methods import RandomFeatures as RandomFeatures
from .solvers import RidgeSolution as RidgeSolution
from .solvers import ridge as ridge
from .storage import load as load
