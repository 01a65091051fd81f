"""Annotations are executed: a run of some tests with every signature of the package checked."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
CHOSEN = [
    "methods/test_exact.py",
    "solvers/test_ridge.py",
    "methods/test_random_features.py",
    "methods/test_leverage_score.py",
    "methods/test_nystroem.py",
    "series/test_hermite.py",
    "series/test_gegenbauer.py",
    "series/test_fit.py",
    "series/test_power_series.py",
    "predict/test_flow.py",
    "predict/test_samples.py",
    "predict/test_passes.py",
    "predict/test_evidence.py",
    "sketches/test_hadamard.py",
    "sketches/test_tensor_sketch.py",
    "empirical/test_features.py",
    "spectral/test_gradients.py",
    "spectral/test_log_determinant.py",
    "subset/test_greedy.py",
    "subset/test_random.py",
]
NAMES = "ridge or Relu"
NAMES += " or integrals or test_shapes or test_powers or recovery"
NAMES += " or test_the_transform or test_tensor_srht or adds_signed"
NAMES += " or finite_times or a_sample_is or streamed_once or test_traced"
NAMES += " or brute_force or test_streamed or eigenvectors"
NAMES = f"({NAMES} or test_keys)"
NAMES += " and not (Errors or ABRelu or LeakyRelu or stabilised"  # Errors: of wrong types
NAMES += " or wide or branches or blocks or 2048 or unbiased or of_kernels_alone or less_variance"
NAMES += " or series_are or float64)"


def test_annotations_are_true():
    hook = "--jaxtyping-packages=ntk_sketch,beartype.beartype"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", hook]
    command += ["-k", NAMES, "-m", "not slow"]
    command += [str(TESTS / name) for name in CHOSEN]
    run = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
