"""The error for a library that is not installed."""

import importlib.util


def check_installed(extra: str, *packages: str) -> None:
    """Raises ModuleNotFoundError, with the line that installs the extra, for a missing package."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"ntk_sketch.interop.{extra} needs {package}, which is not installed:"
                f' pip install "ntk-sketch[{extra}]"',
                name=package,
            )
