"""Nonlinearities as their dual kernels `k_σ` and `k_σ'`, and as random functions."""

from ._dual import DualActivation as DualActivation
from ._dual import value_and_derivative as value_and_derivative
from ._jumps import RandomFunction as RandomFunction
