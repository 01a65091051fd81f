"""`python -m benchmarks.matrix_rate`: FLOPs a second of one matrix product, by precision.

What other figures of the same machine are shares of. A product of n x n matrices is 2 n³ FLOPs;
those of a chain run without going back to the host.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import interleaved_seconds
from experiments._common._study import finish

SIZE = {"cpu": 1024, "gpu": 8192}
CHAIN = 8  # products of one call
#: On a GPU the default of float32 is TensorFloat-32; on a CPU all of float32 is full.
KINDS = {
    "float32": ("float32", "highest"),
    "float32, default": ("float32", "default"),
    "bfloat16": ("bfloat16", "default"),
}


@dataclass(frozen=True)
class Settings:
    size: int | None = option(None, count, "n; from the device", "N")
    repetitions: int = option(5, count)
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    size = settings.size or SIZE["cpu" if jax.default_backend() == "cpu" else "gpu"]
    rng = np.random.default_rng(0)
    matrix = jnp.asarray(rng.normal(size=(size, size)) * size**-0.5, jnp.float32)
    calls = {name: _chain(matrix.astype(dtype), how) for name, (dtype, how) in KINDS.items()}
    interleaved_seconds(calls, 1)
    flops = 2 * size**3 * CHAIN
    rates = {
        name: flops / float(np.median(seconds))
        for name, seconds in interleaved_seconds(calls, settings.repetitions).items()
    }
    text = "\n".join(f"{name:18} {rate / 1e12:.3g} TFLOP/s" for name, rate in rates.items())
    results = {"size": size, "flops_per_second": rates}
    return finish("matrix rate", settings, "matrix-rate", results, text)


def _chain(matrix: jax.Array, precision: str):
    @jax.jit
    def products(matrix):
        result = matrix
        for _ in range(CHAIN):
            result = jnp.matmul(result, matrix, precision=precision)
        return result

    return lambda: products(matrix).block_until_ready()


def main(arguments: list[str] | None = None) -> int:
    settings, _ = settings_from(Settings, "benchmarks.matrix_rate", __doc__, arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
