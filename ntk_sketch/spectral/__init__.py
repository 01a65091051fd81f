"""Log-determinants and traces of functions of large symmetric operators, and their gradients.

log_determinant     log det(A + λI)
trace_of_function   tr f(A + λI)
FeatureGram         ZᵀZ or ZZᵀ of streamed features, as an operator
"""

from ._estimate import Estimate as Estimate
from ._feature_gram import FeatureGram as FeatureGram
from ._functions import log_determinant as log_determinant
from ._functions import trace_of_function as trace_of_function
