"""Regression on features: x → features → sufficient statistics → weights → predictions.

`ridge` does it all; `accumulate`, `GramState.merge` and `solve` are its parts, for data that come
in pieces. The features alone, batch by batch, come from `ntk_sketch.streaming.stream`.
"""

from ._gram_state import GramState as GramState
from ._ridge import accumulate as accumulate
from ._ridge import ridge as ridge
from ._ridge import solve as solve
from ._selection import GCV as GCV
from ._selection import HoldOut as HoldOut
from ._selection import LeaveOneOut as LeaveOneOut
from ._selection import Validation as Validation
from ._solution import RidgeSolution as RidgeSolution
