"""Where the time and the memory of a run went, phase by phase."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax


@dataclass
class Phases:
    """Seconds and peak memory of named phases; a phase may be entered many times (once per batch).

    `peak_rss[name]` is the largest resident set of this process while the phase ran. Where the
    system cannot reset its high-water mark (only Linux can), it is the mark at the end of the
    phase, which never falls; `resets` says which. `peak_device[name]` is the device allocator's
    high-water mark so far, on devices that have one (GPUs).
    """

    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss: dict[str, int] = field(default_factory=dict)
    peak_device: dict[str, int] = field(default_factory=dict)
    resets: bool = True

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.resets = _reset_peak_rss() and self.resets
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.peak_rss[name] = max(self.peak_rss.get(name, 0), _peak_rss(self.resets))
            if (device := _peak_device()) is not None:
                self.peak_device[name] = device

    def table(self) -> str:
        """One line per phase: seconds, peak resident memory, peak device memory."""
        width = max(map(len, [*self.seconds, "total"]))
        heading = f"{'':{width}} {'seconds':>9} {'peak MiB':>9}"
        rows = [heading + (f" {'device MiB':>11}" if self.peak_device else "")]
        for name, seconds in self.seconds.items():
            row = f"{name:{width}} {seconds:9.2f} {self.peak_rss[name] / 2**20:9.0f}"
            if self.peak_device:
                row += f" {self.peak_device[name] / 2**20:11.0f}"
            rows.append(row)
        total = f"{'total':{width}} {sum(self.seconds.values()):9.2f}"
        return "\n".join([*rows, f"{total} {max(self.peak_rss.values()) / 2**20:9.0f}"])

    def record(self) -> dict[str, Any]:
        """The same for a JSON record; memory in bytes."""
        return {
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "total_seconds": round(sum(self.seconds.values()), 4),
            "peak_rss_bytes": dict(self.peak_rss),
            "peak_rss_is_per_phase": self.resets,
            "peak_device_bytes": dict(self.peak_device),
        }


def resident() -> int | None:
    """Bytes of this process that are in memory now; None where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
    return int(lines[0].split()[1]) * 1024


def _reset_peak_rss() -> bool:
    """Sets the high-water mark of this process back to its present size (Linux, proc(5))."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_rss(was_reset: bool) -> int:
    if was_reset:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _peak_device() -> int | None:
    statistics = jax.devices()[0].memory_stats()
    return None if not statistics else statistics.get("peak_bytes_in_use")
