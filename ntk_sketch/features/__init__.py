"""What flows from layer to layer: feature vectors of every position, with their exact variances."""

from ._features import Features as Features
