"""Convolutional kernel regression on CIFAR-10: recipes of networks, and their defaults."""

from ._recipes import RECIPES as RECIPES
from ._run import SAMPLE as SAMPLE
