"""What `import ntk_sketch` does and leaves alone, each time in a fresh process."""

import os
import subprocess
import sys
import textwrap

import pytest

# Some arithmetic through every repaired part: kernels, derivatives by rules, SciPy.
USE = """
    import neural_tangents as nt
    from neural_tangents import stax
    import numpy as np
    init_fn, apply_fn, kernel_fn = stax.serial(stax.Dense(8), stax.Relu(), stax.Dense(1))
    x = np.eye(3, dtype=np.float32)
    _, params = init_fn(jax.random.key(0), x.shape)
    fns = [nt.empirical_ntk_fn(apply_fn, implementation=i) for i in (1, 3)]
    got = [jax.jit(fn)(x, None, params) for fn in fns]
    # Another order of summation in float32: a few eps.
    np.testing.assert_allclose(got[0], got[1], rtol=1e-5, atol=1e-6)
    nt.predict.max_learning_rate(kernel_fn(x, None, "ntk"))
    assert nt.__version__ == "0.6.5"
"""


def run(*parts, **environment):
    code = "\n".join(textwrap.dedent(part) for part in parts)
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_tensorflow():
    run(
        """
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("tensorflow", "tf2jax"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Absent())
        import jax
        import ntk_sketch
        """,
        USE,
        """
        # Only what needs TensorFlow asks for it.
        assert not hasattr(nt.experimental, "something_else")
        try:
            nt.experimental.empirical_ntk_fn_tf
        except ModuleNotFoundError as error:
            assert error.name.partition(".")[0] in ("tensorflow", "tf2jax"), error
        else:
            raise AssertionError("TensorFlow was not asked for")
        """,
    )


def test_with_tensorflow(tmp_path):
    """Never imported, though it could be."""
    for name in ("tensorflow", "tf2jax"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported ' + __name__)")
    run(
        """
        import sys, importlib.util
        import jax
        import ntk_sketch
        """,
        USE,
        """
        assert importlib.util.find_spec("tensorflow").origin.startswith(sys.path[1]), sys.path
        assert not {"tensorflow", "tf2jax"} & set(sys.modules)
        """,
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    )


def test_namespaces_of_jax_are_left_alone():
    """Not during the import either: looks at them each time that NT imports one of its modules."""
    run(
        """
        import sys
        import jax, jax.core, jax.extend.core, jax.extend.linear_util, jax.extend.source_info_util
        import jax.interpreters.ad, jax.experimental.ode, jax.example_libraries.stax
        import jax.scipy.linalg, jax.flatten_util, scipy, scipy.linalg

        def snapshot():
            return {
                name: dict(vars(module))
                for name, module in sorted(sys.modules.items())
                if name.partition(".")[0] in ("jax", "scipy") and not name.startswith("jax._")
            }

        def compare():
            now = snapshot()
            for name, names in before.items():
                assert now[name].keys() - names.keys() <= loaded(name), name
                assert all(now[name][key] is value for key, value in names.items()), name
            assert "jax.util" in before or "jax.util" not in now

        def loaded(name):  # submodules that were imported meanwhile
            start = name + "."
            return {m[len(start):] for m in sys.modules if m.startswith(start)} 
        before = snapshot()

        def watch(event, args):
            if event == "import" and args[0].startswith("neural_tangents."):
                compare()
                watched.append(args[0])

        watched = []
        sys.addaudithook(watch)
        import ntk_sketch
        assert len(watched) > 10
        compare()
        """,
        USE,
        "compare()",
    )


def test_numbers_are_the_same_after_an_earlier_import():
    """NT imported before, by means of somebody else's patches: repaired in place."""
    run(
        """
        import sys, types
        import jax, jax.core, jax.extend.core
        from jax.interpreters import ad
        names = ["Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var"]
        added = [(jax.core, n, getattr(jax.extend.core, n)) for n in names]
        added += [(ad, "zeros_like_p", jax.extend.core.Primitive("zeros_like"))]
        added = [(m, n, v) for m, n, v in added if n not in vars(m)]
        for module, name, value in added:
            setattr(module, name, value)
        util = types.ModuleType("jax.util")
        util.safe_map = lambda f, *args: list(map(f, *args))
        util.safe_zip = lambda *args: list(zip(*args))
        sys.modules["jax.util"] = util
        sys.modules["neural_tangents.experimental"] = types.ModuleType("placeholder")
        import neural_tangents
        from neural_tangents import stax as held
        for module, name, _ in added:
            delattr(module, name)
        import ntk_sketch
        """,
        USE,
        "assert held is stax and nt is neural_tangents",
    )


@pytest.mark.parametrize(
    "tensorflow",
    [
        pytest.param("", marks=pytest.mark.slow),
        'sys.modules["tensorflow"] = None  # not installed',
    ],
)
def test_after_an_import_that_failed(tensorflow):
    """The order of imports that README warns of; what it says of a notebook helps."""
    run(
        "import sys, types",
        tensorflow,
        """
        import jax
        try:
            import neural_tangents
        except ImportError:
            pass
        else:
            raise AssertionError("Neural Tangents imports by itself; this test is of no use then")
        sys.modules["neural_tangents._src"] = types.ModuleType("left behind")
        import ntk_sketch
        """,
        USE,
        "assert nt._src.__name__ == 'neural_tangents._src'",
    )


def test_many_threads_and_reload():
    """One import, by whichever thread is first, without modules that take half a second or more and
    that nothing here needs. Reloading a module of NT keeps it repaired.
    """
    run(
        """
        import concurrent.futures, importlib, sys
        import jax

        def load(i):
            import ntk_sketch
            import neural_tangents
            return neural_tangents.stax.serial is ntk_sketch._nt.nt_stax.serial

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert all(pool.map(load, range(16)))
        slow = {"scipy.stats", "sklearn", "matplotlib", "flax", "optax", "pandas"}
        assert not slow & set(sys.modules)
        import neural_tangents._src.empirical as empirical
        importlib.reload(empirical)
        assert empirical._eqn_vjp_fn.__module__ == "ntk_sketch._nt._rewritten"
        """,
        USE,
    )


WRONG = {
    "jax.__version__, jax.__version_info__ = '0.4.9', (0, 4, 9)": [
        "got jax 0.4.9",
        "needs jax>=0.4.",
        "pip install --upgrade 'jax>=0.4.",
    ],
    "metadata.version = lambda name: '0.6.4'": [
        "got neural-tangents 0.6.4",
        "needs neural-tangents==0.6.5",
        "pip install",
    ],
    "metadata.version = missing": [
        "not installed",
        "neural-tangents==0.6.5",
        "pip install",
        "--no-deps",
    ],
}


def test_wrong_versions():
    """One after the other in one process, and at last the right ones, without a restart."""
    out = run(
        f"wrong = {list(WRONG)}",
        """
        import jax, sys
        from importlib import metadata

        def missing(name):
            raise metadata.PackageNotFoundError(name)

        right = jax.__version__, jax.__version_info__, metadata.version
        for fake in wrong:
            exec(fake)
            try:
                import ntk_sketch
            except ImportError as error:
                print(error, end="next")
            else:
                raise AssertionError("imported")
            jax.__version__, jax.__version_info__, metadata.version = right
        import ntk_sketch
        """,
    )
    *said, end = out.split("next")
    assert not end
    for told, messages in zip(said, WRONG.values(), strict=True):
        for message in messages:
            assert message in told
