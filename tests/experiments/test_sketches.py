"""The measurement of sketches at its smallest, and the tree it compares with."""

import json

import jax
import numpy as np
import pytest

from experiments.sketches import speed
from experiments.sketches._fourier_tree import FourierTree

SMALLEST = (
    "--dimension 64 --batch 3 --width 16 --tree-dimensions 8 --tree-batch 2 --tree-width 8"
    " --degrees 2 3 --points 4 --keys 2 --repetitions 1"
)


@pytest.mark.slow
def test_the_smallest_run(tmp_path, capsys):
    assert speed.main([*SMALLEST.split(), "--out", str(tmp_path)]) == 0
    [path] = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert path.with_suffix(".png").exists()
    results = record["results"]
    # 64 = 8 · 8: two products with 16 FLOPs for each of 64 numbers.
    assert results["srht"]["SRHT"]["flops"] == 3 * 2 * 64 * 16
    assert results["srht"]["GaussianSketch"]["flops"] == 3 * 2 * 64 * 16
    [tree] = results["fourier"]
    assert len(tree["Fourier"]["error"]) == len(tree["PolynomialSketch"]["error"]) == 3
    assert tree["PolynomialSketch"]["error"][0] < 1e-6  # degree 1 is exact
    printed = capsys.readouterr().out
    assert f"GaussianSketch / SRHT: {results['srht']['speedup']:.2f}" in printed
    assert "| PolynomialSketch | 8 | 8 |" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--degrees 4", "two different ones"),
        ("--tree-width 8 --degrees 2 9", "from the largest degree on"),
        ("--keys 1", "at least 2 needed"),
    ],
)
def test_settings_are_checked(words, message, capsys):
    with pytest.raises(SystemExit):
        speed.main(words.split())
    assert message in capsys.readouterr().err


def test_the_fourier_tree_is_unbiased():
    x = speed.spread_points(3, 6)

    def kernels(key):
        z = FourierTree(6, 64, 5, key=key).powers(x)
        return jax.numpy.einsum("ilm,jlm->lij", z, z)

    draws = np.asarray(jax.jit(jax.vmap(kernels))(jax.random.split(jax.random.key(0), 1024)))
    exact = np.stack([np.asarray(x @ x.T) ** l for l in range(6)])
    error = np.abs(draws.mean(0) - exact)
    assert (error <= 4 * draws.std(0) / 32 + 1e-5).all()
