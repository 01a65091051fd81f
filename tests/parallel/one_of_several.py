"""One of several processes that `jax.distributed` joins.

python one_of_several.py port number_of_processes process folder what
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from small_map import SmallMap

import ntk_sketch as ns
from ntk_sketch.parallel import _processes
from ntk_sketch.solvers import (
    Checkpoint,
    ConjugateGradient,
    HoldOut,
    LeaveOneOut,
    _streamed,
    _sums,
    accumulate,
    ridge,
)

N, D = 1200, 6
PATH = [1e-3, 1e-2, 0.1, 1.0]


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D)).astype(np.float32)
    return x, np.tanh(x[:, :2]) + 0.3 * rng.normal(size=(N, 2)) + [5.0, 0.0]


def a_map() -> SmallMap:
    w = np.random.default_rng(3).normal(size=(D, 14)).astype(np.float32)
    return SmallMap(jax.device_put(w))


def part_of(process: int, processes: int) -> slice:
    """Uneven shares; of four processes the third has none."""
    ends = {2: [0, 250, N], 4: [0, 100, 500, 500, N]}[processes]
    return slice(ends[process], ends[process + 1])


def model():
    return ns.stax.serial(ns.stax.Dense(1), ns.stax.Relu(), ns.stax.Dense(1))


def batches_of(x, *others):
    """A function that gives batches of 70."""
    return lambda: ((x[i : i + 70], *(o[i : i + 70] for o in others)) for i in range(0, len(x), 70))


def difference(found, expected) -> float:
    found, expected = np.asarray(found), np.asarray(expected)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def compared(found, alone, x) -> dict:
    """With what one process alone finds, or None where another process looks."""
    about = {"weights": np.asarray(found.weights).tobytes().hex(), "n": found.n_examples}
    if alone is None:
        return about
    return about | {
        "diag_reg": found.diag_reg == alone.diag_reg,
        "predictions": difference(found.predict(x), alone.predict(x)),
        "scores": difference(found.scores, alone.scores),
    }


def error_of(call) -> str:
    try:
        call()
    except (ValueError, RuntimeError, np.linalg.LinAlgError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


class Work:
    def __init__(self, process: int, processes: int, folder: Path):
        self.process, self.folder = process, folder
        self.x, self.y = data()
        self.own = part_of(process, processes)
        self.map, self.mesh = a_map(), Mesh(jax.devices(), ("data",))
        self.checkpoint = Checkpoint(folder / "run-{process}.safetensors", seconds=0)

    def killed(self) -> None:
        """The second process is, behind its first block."""
        count = []

        def progress(n):
            count.append(n)
            if self.process == 1 and sum(count) > 900:
                os.kill(os.getpid(), signal.SIGKILL)

        options = {"checkpoint": self.checkpoint, "progress": progress, "batch_size": 8}
        accumulate(self.map, self.x[self.own], self.y[self.own], mesh=self.mesh, **options)

    def resumed(self) -> dict:
        """What `killed` began, and a regression of what all have by every selector."""
        x, y, own, mesh = self.x, self.y, self.own, self.mesh
        done, options = [], {"batch_size": 8, "mesh": mesh}
        how = {"checkpoint": self.checkpoint, "progress": done.append}
        state = accumulate(self.map, x[own], y[own], **how, **options)
        undisturbed = accumulate(self.map, x[own], y[own], **options)
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(undisturbed), strict=True)
        found: dict = {
            "same bits": all(np.array_equal(a, b) for a, b in pairs),
            "done before": done[0],
            "gram": difference(state.gram.to_host(), accumulate(self.map, x, y).gram.to_host()),
        }
        found |= self.regressions() | {"predict": self.predict(), "errors": self.errors()}
        return found

    def predict(self) -> dict:
        """How far functions of `ns.predict` are from those of one process alone."""
        x, y, test = self.x, self.y, self.x[:50] + np.float32(0.1)
        feature_map, start = self.network(("nngp", "ntk")), np.sin(x[:, :2])
        times = np.array([1.0, 30.0, np.inf])

        def answers(own, mesh):
            given, how = (feature_map, x[own], y[own]), {"batch_size": 100, "mesh": mesh}
            ensemble, descent = (
                function(*given, diag_reg=1e-2, **how)
                for function in (
                    ns.predict.gradient_descent_mse_ensemble,
                    ns.predict.gradient_descent_mse,
                )
            )
            if self.process == 1:  # the other does not ask for it
                ensemble(x_test=test[:3], get="nngp", compute_cov=True)
            found = ensemble(times, test, compute_cov="diagonal")
            some = slice(max(own.start, 240), min(own.stop, 256))  # fewer than features
            few = ns.predict.gp_inference(feature_map, x[some], y[some], diag_reg=1e-2, mesh=mesh)
            if mesh is not None:  # each asks for something else
                descent(*(None, 0.0, 0.0, test) if self.process == 0 else ())
            train, at_test = descent(30.0, start[own], np.cos(test[:, :2]), test)
            return {
                "means": [found.nngp.mean, found.ntk.mean],
                "variances": [found.nngp.covariance, found.ntk.covariance],
                "training examples": ensemble(times[:2], get="ntk"),
                "training examples of descent": train,
                "descent": at_test,
                "variances from few": few("ntkgp", test, "diagonal").covariance,
                "evidence": ns.predict.log_evidence(*given, diag_reg=[1e-2, 0.1], **how),
            }

        found = answers(self.own, self.mesh)
        if self.process == 1:
            return {}
        alone = answers(slice(0, N), None)
        for name in ("training examples", "training examples of descent"):
            alone[name] = alone[name][..., self.own, :]
        return {name: difference(found[name], alone[name]) for name in found}

    def regressions(self) -> dict:
        """Of a network with landmarks in all processes."""
        x, y, own, mesh, feature_map = self.x, self.y, self.own, self.mesh, self.network()
        weights = np.random.default_rng(1).uniform(size=N)
        held_out = HoldOut(0.3, key=jax.random.key(0))
        x_val, y_val = x[:300] + np.float32(0.1), y[:300]
        cg = ConjugateGradient(1e-10, rank=12)
        half = slice(0, 200) if self.process == 0 else slice(200, 300)
        one, all_of = (
            LeaveOneOut(x[s], y[s], sample=N, key=jax.random.key(0)) for s in (own, slice(N))
        )
        # what this process is given, and what one process alone
        cases = {
            "gcv": ("gcv", "gcv", {"fit_intercept": True}),
            "loo": ("loo", "loo", {}),
            "a sample of all": (one, all_of, {}),
            "validation": ((x_val[half], y_val[half]), (x_val, y_val), {"refit": True}),
            "held out": (held_out, held_out, {"extend_path": True}),
            "conjugate gradients": (held_out, held_out, {"solver": cg, "fit_intercept": True}),
        }
        found = {}
        for name, (select, alone, more) in cases.items():
            how = {"diag_reg": PATH, "batch_size": 100, **more}
            more = (weights,) if name in ("gcv", "conjugate gradients") else ()
            given = batches_of(x[own], y[own], *(w[own] for w in more))
            solution = ridge(feature_map, given, select=select, mesh=mesh, **how)
            expected = None
            if self.process == 0:
                expected = ridge(feature_map, batches_of(x, y, *more), select=alone, **how)
            found[name] = compared(solution, expected, x)
        arrays = ridge(feature_map, x[own], y[own], select="loo", mesh=mesh, diag_reg=PATH)
        # of the same examples as "loo"
        found["arrays"] = compared(arrays, None, x)
        return found

    def network(self, get="ntk"):
        sample, key = self.x[:: N // 40], jax.random.key(0)
        return ns.feature_map(model(), sample, ns.Nystroem(12), key=key, get=get)

    def errors(self) -> dict:
        x, y, mesh, first = self.x[:40], self.y[:40], self.mesh, self.process == 0
        broken = y.copy()
        broken[17] = y[17] if first else np.nan
        none = np.zeros((0, D), np.float32)
        overflows = SmallMap(self.map.w * np.float32(1e38 if first else 1))
        key = jax.random.key(self.process)
        random_map = ns.feature_map(model(), x, ns.RandomFeatures(4), key=key)
        wide = np.ones((9, D + first), np.float32)
        one, mine = jax.devices()[:1], (self.x[self.own], self.y[self.own])
        with_file = {"batch_size": 8, "checkpoint": self.checkpoint}
        calls = {
            "targets": lambda: ridge(self.map, x, broken, mesh=mesh),
            "of a late batch": lambda: accumulate(self.map, batches_of(x, broken), mesh=mesh),
            "features": lambda: accumulate(overflows, x, y, mesh=mesh),
            "no example": lambda: ridge(self.map, none, none, mesh=mesh),
            "arguments": lambda: ridge(self.map, x, y, diag_reg=PATH[: 1 + first], mesh=mesh),
            "shapes": lambda: accumulate(lambda x: self.map(x[:, :D]), wide, y[:9], mesh=mesh),
            "predictions": lambda: ns.predict.gp_inference(
                self.network(), x, y, diag_reg=0.1 if first else 1.0, mesh=mesh
            ),
            "learning rates": lambda: ns.predict.gradient_descent_mse(
                self.network(), x, y, learning_rate=1.0 + first, mesh=mesh
            ),
            "evidence": lambda: ns.predict.log_evidence(
                self.network(), x, y, get="ntk", diag_reg=[0.0 if first else 0.1, 1], mesh=mesh
            ),
            "evidence at 0": lambda: ns.predict.log_evidence(
                self.network(), x, y, get="ntk", diag_reg=0.0, mesh=mesh
            ),
            "rate of one": lambda: ns.predict.gradient_descent_mse(
                self.network(), x, y, learning_rate=1.0 if first else -1.0, mesh=mesh
            ),
            "targets of predictions": lambda: ns.predict.gp_inference(
                self.network(), x, broken, mesh=mesh
            ),
            "maps": lambda: accumulate(random_map, x, y, mesh=mesh),
            "one file": lambda: accumulate(self.map, x, y, mesh=mesh, checkpoint="one"),
            "kept": lambda: ridge(self.map, x, y, mesh=mesh, keep_features=self.folder / "z"),
            "solver": lambda: self.led(x, y),
            "a part": lambda: ridge(self.map, x, y, mesh=Mesh(one, ("data",))),
            "alone": lambda: accumulate(self.map, *mine, **with_file),
        }
        return {name: error_of(call) for name, call in calls.items()}

    def led(self, x, y) -> None:
        """The first process, which iterates, fails."""

        def fails(*of):
            raise np.linalg.LinAlgError("of the first")

        before, _streamed.NystroemInverse = _streamed.NystroemInverse, fails
        try:
            ridge(self.map, x, y, mesh=self.mesh, solver="cg")
        finally:
            _streamed.NystroemInverse = before

    def of_four(self) -> dict:
        """One process has no examples; targets are of different sizes, in batches and arrays."""
        x, y, own, mesh = self.x, self.y * 1e4, self.own, self.mesh
        y[:100] /= 1e7
        weights = np.random.default_rng(1).uniform(size=N)
        how = {"select": "loo", "diag_reg": PATH, "batch_size": 100}
        given, weight = (batches_of(x[own], y[own], weights[own]),), None
        if self.process in (1, 2):  # the latter has none
            given, weight = (x[own], y[own]), weights[own]
        solution = ridge(self.map, *given, sample_weight=weight, mesh=mesh, **how)
        alone = None
        if self.process == 0:
            alone = ridge(self.map, x, y, sample_weight=weights, **how)
        found = {"loo": compared(solution, alone, x)}
        if self.process == 0:
            own_devices = Mesh(jax.local_devices(), ("data",))
            found["alone"] = accumulate(self.map, x, y, mesh=own_devices).n_examples.item()
        return found


def main(port: str, processes: str, process: str, folder: str, what: str) -> None:
    options: dict = {}
    _sums.HOST_ROWS = 128  # examples between two checkpoints
    _processes.PERIOD = 0.05  # seconds, also of a run that takes one
    if jax.__version_info__ < (0, 6):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    else:
        options["heartbeat_timeout_seconds"] = 10
    jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(process), **options)
    work = Work(int(process), int(processes), Path(folder))
    if what == "killed":
        work.killed()
    try:
        found = getattr(work, what)()
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # else JAX waits for the others, who wait for this one
    Path(folder, f"{what}-{process}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
