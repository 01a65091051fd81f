"""Several devices of one process give the same numbers as one device."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_four_devices():
    """XLA has as many devices as it is told at the start, so that these tests are in a process of
    their own; with every annotation of the package checked."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["--jaxtyping-packages=ntk_sketch,beartype.beartype", HERE / "on_four_devices.py"]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
    assert "failed" not in run.stdout
