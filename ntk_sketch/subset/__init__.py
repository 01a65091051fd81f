"""Diverse subsets of items, from their feature vectors: never the matrix of all pairs.

greedy_map                  the most probable set of a determinantal point process, greedily
batched_greedy_map          the same from random batches, with few passes over the items
k_dpp                       an exact sample of that process, of k items
randomly_pivoted_cholesky   landmarks of a low-rank approximation
FeatureRows                 streamed features as items
"""

from ._batched import batched_greedy_map as batched_greedy_map
from ._greedy import greedy_map as greedy_map
from ._k_dpp import k_dpp as k_dpp
from ._random_pivots import randomly_pivoted_cholesky as randomly_pivoted_cholesky
from ._residuals import Selection as Selection
from ._rows import FeatureRows as FeatureRows
