"""JSON records of experiments: what ran, on what, with which numbers; whole or not at all."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax

PACKAGES = (
    "ntk-sketch",
    "jax",
    "jaxlib",
    "neural-tangents",
    "numpy",
    "scipy",
    "scikit-learn",
    "optax",
)


#: Settings of JAX and its libraries that a record holds where the environment has them.
FLAGS = ("XLA_FLAGS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION")


def environment() -> dict[str, Any]:
    """Versions, device and commit: what somebody needs to explain a different number."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "commit": _commit(),
    } | {name: _without_folders(os.environ[name]) for name in FLAGS if os.environ.get(name)}


def _without_folders(flags: str) -> str:
    """Flags that name none."""
    return " ".join(flag for flag in flags.split() if "/" not in flag)


FOLDERS = ("--data-dir", "--out", "--against")
FILES = ("--records",)


def command_line() -> str:
    """The command as typed, with the interpreter named as users write it, FOLDER for what is
    elsewhere on another machine, and files by their names.
    """
    words, of = list(sys.argv), ""
    for place, word in enumerate(words):
        if word.startswith("--"):
            of = word
        elif of in FOLDERS:
            words[place] = "FOLDER"
        elif of in FILES:
            words[place] = Path(word).name
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    if module is None:
        return " ".join(["python", *words])
    return " ".join(["python -m", module.name.removesuffix(".__main__"), *words[1:]])


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Writes `record` as JSON; an interruption leaves the old file or the new one, never a half."""
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, with `+` when tracked files differ; None outside a checkout."""
    here = Path(__file__).parent
    try:
        ask = {"cwd": here, "capture_output": True, "text": True, "timeout": 10, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **ask).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **ask).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")
