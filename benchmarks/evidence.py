"""`python -m benchmarks.evidence`: the log evidence of features too wide to decompose.

One hidden ReLU layer by `RandomFeatures`, which are features of the NNGP kernel: `log_evidence`
with `log_determinant="stochastic"` for pairs of numbers of examples and of features. Where the
smaller number is at most 5,000, several keys against the value of a decomposition, with the
difference in standard errors that the estimate promises; else the seconds of one key.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ntk_sketch as ns
from experiments._common._arguments import count, option, settings_from
from experiments._common._command import exit_code
from experiments._common._measure import load_average
from experiments._common._study import finish
from ntk_sketch import stax
from ntk_sketch.predict._stochastic_evidence import TOLERANCE

DECOMPOSED = 5000  # of the smaller number, at most
PENALTIES = (0.01, 0.1)
COLUMNS = 16


@dataclass(frozen=True)
class Settings:
    examples: tuple[int, ...] = option((20_000, 4_000), count, as_given=True)
    features: tuple[int, ...] = option((4_096, 32_768), count, as_given=True)
    keys: int = option(3, count, "where there is an exact value")
    out: Path = option(Path(__file__).parent / "results", Path, "folder of the record", "DIR")


def measure(n: int, p: int, keys: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, COLUMNS)).astype(np.float32)
    y = np.tanh(x[:, 0] * x[:, 1]) + 0.1 * rng.normal(size=n)
    model = stax.serial(stax.Dense(1, 2**0.5, 0.1), stax.Relu())
    features = ns.RandomFeatures(p)
    feature_map = ns.feature_map(model, x[:1], features, key=jax.random.key(0), get="nngp")
    how: dict[str, Any] = {"diag_reg": PENALTIES, "diag_reg_absolute_scale": True}
    found: dict[str, Any] = {"log_evidence": [], "seconds": []}
    exact = min(n, p) <= DECOMPOSED
    if exact:
        start = time.perf_counter()
        value = ns.predict.log_evidence(feature_map, x, y, **how)
        seconds = time.perf_counter() - start
        promised = 0.5 * TOLERANCE * n
        found |= {"exact": value.tolist(), "seconds_exact": seconds}
        found |= {"standard_error": promised}
    for seed in range(keys if exact else 1):
        start = time.perf_counter()
        key = jax.random.key(seed)
        value = ns.predict.log_evidence(
            feature_map, x, y, log_determinant="stochastic", key=key, **how
        )
        found["seconds"].append(time.perf_counter() - start)
        found["log_evidence"].append(value.tolist())
    if exact:
        off = np.array(found["log_evidence"]) - found["exact"]
        found["standard_errors_off"] = (off / promised).tolist()
    return found


def run(settings: Settings) -> dict[str, Any]:
    """Measures, prints, writes and returns the record."""
    results, lines, record = {}, [], {}
    for n, p in zip(settings.examples, settings.features, strict=True):
        found = results[f"{n} examples, {p} features"] = measure(n, p, settings.keys)
        text = f"{n:,} examples, {p:,} features: {np.median(found['seconds']):.0f} s"
        if "exact" in found:
            off = np.max(np.abs(found["standard_errors_off"]))
            text += f", decomposed {found['seconds_exact']:.0f} s; {off:.2f} standard errors off"
        lines.append(text)
        about = "evidence", settings, "evidence", results, "\n".join(lines)
        record = finish(*about, penalties=PENALTIES, environment={"load_average": load_average()})
    return record


def main(arguments: list[str] | None = None) -> int:
    settings, parser = settings_from(Settings, "benchmarks.evidence", __doc__, arguments)
    if len(settings.examples) != len(settings.features):
        parser.error("arguments --examples and --features: one of each for every case")
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())
