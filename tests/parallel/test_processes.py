"""Several processes on this machine, joined by `jax.distributed`, work on one regression."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ntk_sketch.parallel._devices import Devices
from ntk_sketch.parallel._led import Led

HERE = Path(__file__).parent
TESTS = HERE.parent
N = 1200


def start(count, folder, what):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, HERE / "one_of_several.py", str(port), str(count)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen([*command, str(i), folder, what], env=environment, **pipes)
        for i in range(count)
    ]


def results(count, folder, what):
    """Of each process."""
    processes = start(count, folder, what)
    errors = [process.communicate()[1] for process in processes]
    assert [p.returncode for p in processes] == [0] * count, "\n".join(e[-3000:] for e in errors)
    return [json.loads((folder / f"{what}-{i}.json").read_text()) for i in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def survivor(folder):
    """What is left when one of two is killed: exit status, standard error, and seconds to the
    error and to the end."""
    first, second = start(2, folder, "killed")
    assert second.wait() == -9
    begin, lines = time.monotonic(), []
    for line in first.stderr:
        lines.append(line)
        if "LostError: " in line:
            break
    told = time.monotonic() - begin
    if jax.__version_info__ < (0, 6):  # whose service waits for 100 seconds
        first.kill()
    lines += first.stderr.readlines()
    return first.wait(), "".join(lines), told, time.monotonic() - begin


@pytest.fixture(scope="module")
def both(folder, survivor):
    assert survivor
    return results(2, folder, "resumed")


def test_one_is_killed(survivor):
    """The other says so at once, and ends by itself within the time of the heartbeat, 10 s."""
    status, text, told, ended = survivor
    assert status != 0
    assert "process 0 of 2 cannot reach the others any more: one of them was killed" in text
    assert "with checkpoint= they go on from what was written" in text
    assert told < 5
    assert ended < 30


def test_both_go_on(both):
    for process, done in zip(both, (250, 800), strict=True):
        assert process["same bits"]
        assert process["done before"] >= done
        assert process["gram"] < 1e-6


CASES = ["gcv", "loo", "a sample of all", "validation", "held out", "conjugate gradients"]


@pytest.mark.parametrize("case", CASES)
def test_two_are_as_one(both, case):
    first, second = (process[case] for process in both)
    assert first["weights"] == second["weights"]
    assert first["diag_reg"]
    assert first["n"] == {"validation": N + 300}.get(case, first["n"])
    assert case in ("held out", "conjugate gradients") or first["n"] >= N
    assert first["predictions"] < 1e-6
    assert first["scores"] < 1e-6


class Alone:
    """A process that exchanges with itself."""

    together = contextlib.nullcontext

    def gathered(self, value):
        return [value]

    def gathered_arrays(self, array):
        return [array]

    def summed(self, numbers):
        return numbers


def test_numbers_that_machines_round_differently():
    """All take those of the first process."""

    class Rounding(Alone):
        def gathered_arrays(self, array):
            return [np.nextafter(array, 1), array]

    found = Devices(processes=Rounding()).common(np.zeros(3))
    np.testing.assert_array_equal(found, np.full(3, np.nextafter(0, 1)))


def test_each_map_is_the_one_that_is_asked_for():
    led, v = Led([lambda v: 2 * v, lambda v: 3 * v], Devices(processes=Alone())), np.ones((4, 1))
    double, triple = led.found(lambda twice, thrice: (twice(v), thrice(v)))
    np.testing.assert_array_equal(double, 2 * v)
    np.testing.assert_array_equal(triple, 3 * v)


def test_arrays_are_as_batches(both):
    for process in both:
        assert process["arrays"] == both[0]["arrays"]
        found, expected = (
            np.frombuffer(bytes.fromhex(process[case]["weights"]), np.float32)
            for case in ("arrays", "loo")
        )
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


ANSWERS = [
    "means",
    "variances",
    "variances from few",
    "training examples",
    "training examples of descent",
    "descent",
    "evidence",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_predictions_are_of_the_examples_of_both(both, answer):
    """Relative to those of one process with all examples; its sums have the rounding of float64."""
    assert both[0]["predict"][answer] < 1e-6


TOLD = {
    "targets": ("y is not finite", "process 1 of 2 ended by ValueError: y"),
    "of a late batch": ("in batch 0", "process 1 of 2 ended by ValueError: in batch 0"),
    "features": ("process 0 of 2 ended by ValueError: the ntk features", "the ntk features of"),
    "no example": ("none of 2 processes has an example",) * 2,
    "arguments": ("different arguments (diag_reg: [0.001, 0.01] in process 0, [0.001] in",) * 2,
    "shapes": ("different examples (shape: [7] in process 0, [6] in process 1)",) * 2,
    "predictions": ("different arguments (diag_reg: 0.1 in process 0, 1.0 in process 1)",) * 2,
    "learning rates": ("different arguments (learning_rate: 2.0 in process 0, 1.0 in",) * 2,
    "evidence": ("different arguments (diag_reg: [0.0, 1.0] in process 0, [0.1, 1.0] in",) * 2,
    "evidence at 0": ("every diag_reg must be > 0",) * 2,
    "rate of one": ("it must be finite and > 0", "process 1 of 2 ended by ValueError: learning_"),
    "targets of predictions": ("y_train is not finite", "process 1 of 2 ended by ValueError: y_tr"),
    "maps": ("process 1 and process 0 have different feature maps",) * 2,
    "one file": ("put {process} into the name, such as 'run-{process}.safetensors'",) * 2,
    "kept": ("keep_features is of one process, and this mesh is of several",) * 2,
    "solver": ("process 0 ended by LinAlgError: of the first", "LinAlgError: of the first"),
    "a part": ("ValueError: no device of the mesh is in this process (1 of 2)", "none"),
    "alone": ("process 1 of 2 there, on the host here", "process 0 of 2 there, on the host here"),
}


@pytest.mark.parametrize("case", TOLD)
def test_all_are_told(both, case):
    """In the process that is to blame, mostly the second, and in the other."""
    second, first = TOLD[case]
    assert first in both[0]["errors"][case]
    assert second in both[1]["errors"][case]


@pytest.mark.slow
def test_four_one_of_them_without_examples(folder):
    every = results(4, folder, "of_four")
    found = [process["loo"] for process in every]
    assert every[0]["alone"] == N
    assert found[0]["n"] == N
    assert found[0]["diag_reg"]
    assert found[0]["predictions"] < 1e-6
    assert found[0]["scores"] < 1e-6
    assert len({process["weights"] for process in found}) == 1
