"""Code that every benchmark shares: interleaved repetitions, paired ratios, bars, one JSON line.

    result = timing.Benchmark("crops")
    result.compare("int8/memcpy", ours, base, at_most=0.6)
    result.finish()

Ratios are paired: each repetition runs both ways back to back and the median of the per-repetition
ratios is reported, so that a machine which slows down slows both. Absolute times do not carry over.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

REPETITIONS = 7


class Benchmark:
    """Collects ratios and bars of one benchmark; `finish` prints them and exits 1 when a bar is missed."""

    def __init__(self, name: str):
        self.name = name
        self.ratios: dict[str, float] = {}
        self.bars: dict[str, dict[str, float]] = {}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        print(f"{name}: {cores} cores, {platform.machine()}, {REPETITIONS} interleaved repetitions", flush=True)

    def compare(
        self,
        label: str,
        way: Callable[[], object],
        base: Callable[[], object],
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> float:
        """Time `way` and `base` in turn after one warm-up each; the bar is on the wall-time ratio way/base."""
        way(), base()
        pairs = [(_timed(way), _timed(base)) for _ in range(REPETITIONS)]
        wall, cpu = (
            statistics.median(one[clock] / max(other[clock], 1e-9) for one, other in pairs) for clock in (0, 1)
        )
        low, high = (statistics.median(pair[side][0] for pair in pairs) * 1000 for side in (0, 1))
        print(f"  {label}: wall {wall:.3f}, CPU {cpu:.3f} ({low:.1f} ms / {high:.1f} ms)", flush=True)
        self.record(label, wall, at_most=at_most, at_least=at_least)
        self.ratios[f"{label} CPU"] = round(cpu, 4)
        return wall

    def record(self, label: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        """A figure measured elsewhere (memory, an error), with its bar."""
        self.ratios[label] = float(f"{value:.4g}")
        bar = {key: limit for key, limit in (("at_most", at_most), ("at_least", at_least)) if limit is not None}
        if bar:
            self.bars[label] = bar

    def finish(self) -> None:
        """Print each bar, with `--json` the result as the last line, and exit 0 or 1."""
        missed = [label for label, bar in self.bars.items() if not _holds(self.ratios[label], bar)]
        for label, bar in self.bars.items():
            verdict = "missed" if label in missed else "holds"
            wanted = " and ".join(f"{key.replace('_', ' ')} {limit:g}" for key, limit in bar.items())
            print(f"  {verdict}: {label} = {self.ratios[label]:g}, bar {wanted}")
        if json_asked():
            result = {"name": self.name, "ratios": self.ratios, "bars": self.bars, "pass": not missed}
            print(json.dumps(result))
        raise SystemExit(1 if missed else 0)


def json_asked() -> bool:
    """True if the command line holds `--json`; it may hold nothing else."""
    parser = argparse.ArgumentParser(description="Run one benchmark.")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON: name, ratios, bars, pass")
    return parser.parse_args().json


def _timed(way: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds (all threads) of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - wall, time.process_time() - cpu


def _holds(value: float, bar: dict[str, float]) -> bool:
    return bar.get("at_least", value) <= value <= bar.get("at_most", value)
