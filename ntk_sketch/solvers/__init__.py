"""Ridge regression on features: x → features → sufficient statistics → weights → predictions.

Use `ridge` for a regression in one call. Use its parts `accumulate`, `GramState.merge` and `solve`
if data come in pieces, for example on several machines.
"""

from ._checkpoint import Checkpoint as Checkpoint
from ._conjugate_gradient import ConjugateGradient as ConjugateGradient
from ._conjugate_gradient import Report as Report
from ._gcv import GCV as GCV
from ._gram_state import GramState as GramState
from ._leave_one_out import LeaveOneOut as LeaveOneOut
from ._ridge import ridge as ridge
from ._solution import RidgeSolution as RidgeSolution
from ._statistics import accumulate as accumulate
from ._statistics import solve as solve
from ._validation import HoldOut as HoldOut
from ._validation import Validation as Validation
