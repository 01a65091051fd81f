"""Predictions of infinitely wide networks: means, covariances, samples and the evidence.

The module is `neural_tangents.predict` with a feature map and examples in place of kernels, at a
cost linear in examples and at any time of training.
"""

from ._ensemble import gradient_descent_mse_ensemble as gradient_descent_mse_ensemble
from ._evidence import log_evidence as log_evidence
from ._gp import gp_inference as gp_inference
from ._mse import gradient_descent_mse as gradient_descent_mse
from ._predictors import Gaussian as Gaussian
