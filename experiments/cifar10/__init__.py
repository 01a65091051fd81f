"""Convolutional kernel regression on CIFAR-10 with Myrtle networks."""

from ._run import BATCH_BYTES as BATCH_BYTES
from ._run import SAMPLE as SAMPLE
from ._run import SIZES as SIZES
