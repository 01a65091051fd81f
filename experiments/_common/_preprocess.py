"""Standardisation, per-image layer norm and regularised ZCA, fitted on training images only."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BATCH = 2048


@dataclass(frozen=True)
class Steps:
    """Which steps to take, in this order.

    Attributes:
        standardise: per channel, subtract the mean and divide by the standard deviation of all
            training pixels.
        layer_norm: per image, subtract the mean over its pixels and channels and divide by the
            Euclidean norm. A constant image becomes zero.
        zca_reg: regularisation r of ZCA: multiply by V (S + r mean(S))^(-1/2) Vᵀ, where V S Vᵀ is
            the matrix of second moments xᵀx/n of the training images. None leaves the step out.
    """

    standardise: bool = True
    layer_norm: bool = True
    zca_reg: float | None = 0.1


@dataclass(frozen=True)
class Preprocessing:
    """Fitted steps; call it on uint8 or float images (n, h, w, c) for float32 of the same shape.

    ZCA after normalising each image is the preprocessing of Shankar et al., Neural kernels without
    tangents (2020); the relative regularisation is that of Nguyen et al., Dataset distillation with
    infinitely wide convolutional networks (2021).
    """

    layer_norm: bool
    mean: np.ndarray
    std: np.ndarray
    whitening: np.ndarray | None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        out = np.empty(images.shape, np.float32)
        for part, rows in self.normalised(images):
            if self.whitening is not None:
                rows = rows @ self.whitening
            out[part] = rows.reshape(-1, *images.shape[1:])
        return out

    def normalised(self, images: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Float64 rows after every step but the last, in batches."""
        for start in range(0, len(images), BATCH):
            part = slice(start, min(start + BATCH, len(images)))
            rows = ((images[part] - self.mean) / self.std).reshape(part.stop - part.start, -1)
            if self.layer_norm:
                rows -= rows.mean(1, keepdims=True)
                norms = np.linalg.norm(rows, axis=1, keepdims=True)
                # The mean of a constant image is exact only to rounding; what is left is no signal.
                floor = np.sqrt(rows.shape[1]) * 1e-12
                rows = np.where(norms > floor, rows / np.maximum(norms, floor), 0.0)
            yield part, rows


def fit(images: np.ndarray, steps: Steps) -> Preprocessing:
    """Fits `steps` on training images (n, h, w, c).

    Costs one pass over the images for each of standardisation and ZCA, and for d = h·w·c one
    (d, d) matrix in float64, 2nd² FLOPs and the eigendecomposition of it; of n < d images their
    singular value decomposition, O(n²d), in its place.
    """
    if not len(images):
        raise ValueError("Preprocessing needs at least one training image.")
    channels = images.shape[-1]
    mean, std = np.zeros(channels), np.ones(channels)
    if steps.standardise:
        mean, std = _moments(images)
    fitted = Preprocessing(steps.layer_norm, mean, std, None)
    if steps.zca_reg is None:
        return fitted
    values, vectors = _second_moments(fitted, images)
    d = len(vectors)
    ridge = steps.zca_reg * values.sum() / d
    double = np.finfo(np.float64)
    floor = max(d * double.eps * (values.max() + ridge), double.tiny)

    def scales(values):
        return np.where(values + ridge > floor, 1 / np.sqrt(np.maximum(values + ridge, floor)), 0.0)

    others = scales(0.0)  # directions that `vectors` leave out have no variance
    whitening = (vectors * (scales(values) - others)) @ vectors.T + others * np.eye(d)
    return Preprocessing(steps.layer_norm, mean, std, whitening)


def _second_moments(fitted: Preprocessing, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of xᵀx/n, of fewer images than numbers by their own SVD."""
    n, d = len(images), int(np.prod(images.shape[1:]))
    if n < d:
        rows = np.concatenate([rows for _, rows in fitted.normalised(images)])
        _, singular, vectors = np.linalg.svd(rows / np.sqrt(n), full_matrices=False)
        return singular**2, vectors.T
    second = np.zeros((d, d))
    for _, rows in fitted.normalised(images):
        second += rows.T @ rows
    values, vectors = np.linalg.eigh(second / n)
    return np.maximum(values, 0.0), vectors  # rounding: the matrix has no negative eigenvalue


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel, in two float64 passes over batches."""
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    pixels = images[..., 0].size
    mean = np.sum([b.sum((0, 1, 2), dtype=np.float64) for b in batches], axis=0) / pixels
    squares = np.sum([((b - mean) ** 2).sum((0, 1, 2)) for b in batches], axis=0)
    std = np.sqrt(squares / pixels)
    return mean, np.where(std > 0, std, 1.0)
