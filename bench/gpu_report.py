"""Rows of bench.gpu: time, memory and FLOPs of what runs, the table, the bars."""

import gc
import json
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import torch

from bench.flops import counted
from src.core.stage.errors import DependencyError

# Dense bfloat16 TFLOP/s by the vendors' data sheets; the first whose name is in the GPU's counts.
PEAKS = {"H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "A100": 312, "L40S": 362, "RTX 4090": 165}
WARM_UPS = 2
COLUMNS = {
    "what": "",
    "tokens": "tokens",
    "checkpointing": "checkpointed",
    "batch": "batch",
    "seconds": "s",
    "samples_per_second": "samples/s",
    "tflop_per_second": "TFLOP/s",
    "mfu": "MFU",
    "allocated_gb": "GB allocated",
    "reserved_gb": "GB reserved",
    "estimated_gb": "GB estimated",
    "status": "",
}


class Report:
    """Collects rows; whatever fails in one is said in it, and the next begins with an empty GPU."""

    def __init__(self, device: torch.device, shape: str, repetitions: int):
        self.device, self.repetitions = device, repetitions
        self.hardware = {"shape": shape, "repetitions": repetitions, **hardware(device)}
        self.rows: list[dict] = []
        self.ratios: dict[str, float] = {}
        self.bars: dict[str, dict] = {}
        print(f"gpu: {self.hardware}", flush=True)

    @contextmanager
    def row(self, what: str, batch: int | None, **facts) -> Iterator[dict]:
        """A row to fill; its `status` becomes "ok", "out of memory" or what went wrong."""
        row = {"what": what, "batch": batch, **facts}
        self.release()
        try:
            yield row
            row["status"] = "ok"
        except torch.OutOfMemoryError:
            row["status"] = "out of memory"
        except DependencyError as error:
            row["status"] = str(error)
        except Exception as error:  # the other rows are worth having: a GPU may not be at hand again
            traceback.print_exc()
            row["status"] = f"failed: {type(error).__name__}: {error}".splitlines()[0]
        if batch is not None or row["status"] != "ok":
            self.rows.append(row)
            print("  " + ", ".join(f"{name} {shown(value)}" for name, value in row.items()), flush=True)

    def part(self, what: str):
        """Rows that share a model; there is a row for the part only where it fails."""
        return self.row(what, None)

    @contextmanager
    def at_most(self, gigabytes: float | None) -> Iterator[None]:
        """Refuse more than so much of the GPU's memory to torch, as a smaller card would; None: all of it."""
        limited = gigabytes is not None and self.device.type == "cuda"
        if limited:
            total = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(gigabytes * 1e9 / total, 1.0), self.device)
        try:
            yield
        finally:
            if limited:
                torch.cuda.set_per_process_memory_fraction(1.0, self.device)

    def measure(self, row: dict, loss: Callable[[], torch.Tensor], update: Callable[[], object]) -> None:
        """Fill `row` with time, peak memory and FLOPs of `loss`, its backward and `update`."""
        with counted() as flops:
            value = loss()
        value.backward()
        update()
        del value

        def step() -> None:
            loss().backward()
            update()

        self.observe(row, step, warm_ups=WARM_UPS - 1)
        row["tflop"] = (flops.forward + flops.backward) / 1e12
        row["tflop_per_second"] = row["tflop"] / row["seconds"]
        peak = self.hardware["peak_tflops"]
        row["mfu"] = row["tflop_per_second"] / peak if peak else None

    def observe(self, row: dict, body: Callable[[], object], warm_ups: int = WARM_UPS) -> None:
        """Fill `row` with median seconds, rate and peak memory of `body`."""
        gpu = self.device.type == "cuda"
        for _ in range(warm_ups):
            body()
        if gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        row["seconds"] = statistics.median(self._timed(body) for _ in range(self.repetitions))
        row["samples_per_second"] = row["batch"] / row["seconds"]
        row["allocated_gb"] = torch.cuda.max_memory_allocated() / 1e9 if gpu else None
        row["reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9 if gpu else None

    def find(self, what: str, batch: int, **facts) -> dict | None:
        """The row that ran with these facts, if any did."""
        wanted = {"what": what, "batch": batch, "status": "ok", **facts}
        return next((row for row in self.rows if wanted.items() <= row.items()), None)

    def bar(self, label: str, value: float | None, **limit: float) -> None:
        """`at_least` or `at_most` for a figure; one that could not be had neither holds nor misses its bar."""
        low, high = limit.get("at_least", float("-inf")), limit.get("at_most", float("inf"))
        self.bars[label] = {**limit, "value": value, "holds": None if value is None else low <= value <= high}

    def release(self) -> None:
        """Free what nothing refers to any more."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def finish(self, json_asked: bool) -> None:
        """Print table and bars, with `json_asked` a line of JSON, and exit 1 unless all bars hold and no row failed."""
        print(table(self.rows))
        for label, bar in self.bars.items():
            limits = " and ".join(
                f"{key.replace('_', ' ')} {bar[key]:g}" for key in ("at_least", "at_most") if key in bar
            )
            verdict = {True: "holds", False: "missed", None: "not measured"}[bar["holds"]]
            print(f"  {verdict}: {label} = {shown(bar['value'])}, bar {limits}")
        failed = [row["what"] for row in self.rows if row["status"].startswith("failed")]
        passed = not failed and all(bar["holds"] for bar in self.bars.values())
        if json_asked:
            result = {"name": "gpu", "hardware": self.hardware, "rows": self.rows, "ratios": self.ratios}
            print(json.dumps(rounded(result | {"bars": self.bars, "pass": passed})))
        sys.exit(0 if passed else 1)

    def _timed(self, body: Callable[[], object]) -> float:
        if self.device.type != "cuda":
            start = time.perf_counter()
            body()
            return time.perf_counter() - start
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        body()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000


def hardware(device: torch.device) -> dict:
    """The machine and what runs on it."""
    found = {"gpu": None, "memory_gb": None, "peak_tflops": None, "machine": platform.machine()}
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        peak = next((peak for part, peak in PEAKS.items() if part in name), None)
        memory = torch.cuda.get_device_properties(device).total_memory / 1e9
        found |= {"gpu": name, "memory_gb": memory, "peak_tflops": peak, "cuda": torch.version.cuda}
    for package in ("torch", "transformers", "peft", "bitsandbytes"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def table(rows: list[dict]) -> str:
    """`rows` in Markdown."""
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    lines += [[shown(row.get(name)) for name in COLUMNS] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: object) -> str:
    """A value as a cell: three digits, nothing for None."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def rounded(value: object) -> object:
    """`value` with every float in it to four digits."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
