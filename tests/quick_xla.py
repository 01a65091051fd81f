"""Flags of XLA for tests, which compile far more than they compute."""

import importlib.util
import mmap
from pathlib import Path

_QUICK = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_use_fusion_emitters": "false",  # whose code takes twice as long to compile
}


def flags() -> str:
    """Those that the XLA of this jaxlib knows: it aborts at others."""
    return " ".join(f"--{name}={value}" for name, value in _QUICK.items() if _is_known(name))


def _is_known(name: str) -> bool:
    package = importlib.util.find_spec("jaxlib")
    assert package is not None
    assert package.origin is not None
    for library in Path(package.origin).parent.glob("*.so"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as code:
            if code.find(name.encode()) >= 0:
                return True
    return False
