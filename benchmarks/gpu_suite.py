"""Accept a device: check every operation on it, time them against all rivals, measure training. One command:

python benchmarks/gpu_suite.py --out DIR

Runs from a checkout, installed or not, with nothing but PyTorch (and Triton); the training parts also need diffusers.
Results are written after every case: what was measured survives whatever stops the run.
"""

import argparse
import gc
import importlib.util
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # As a script, Python puts this folder first: its modules would shadow others of the same name.
    sys.path[0] = str(ROOT)
    __package__ = "benchmarks"
if importlib.util.find_spec("rcv.kernels") is None and (ROOT / "kernels" / "__init__.py").exists():
    # A checkout that is not installed: `rcv.kernels` is the folder `kernels`, as setup.py maps it.
    _spec = importlib.util.spec_from_file_location(
        "rcv.kernels", ROOT / "kernels" / "__init__.py", submodule_search_locations=[str(ROOT / "kernels")]
    )
    sys.modules["rcv.kernels"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["rcv.kernels"])
    sys.modules["rcv"].kernels = sys.modules["rcv.kernels"]

from . import cases, operations_part, training_part  # noqa: E402
from .devices import cpu_clock, device_name, device_of  # noqa: E402
from .results import Results, commit, load, shortfalls, versions  # noqa: E402

PARTS = ("check", "ops", "steps", "memory")
# Seconds of one piece of work before any of its part was seen, on CUDA and on a CPU.
FIRST_GUESS = {"cuda": {"check": 2, "ops": 10, "steps": 40, "memory": 40}, "cpu": dict.fromkeys(PARTS, 3)}
CASES_BEFORE_TRAINING = 20


@dataclass(frozen=True)
class Item:
    """A piece of work: its part, its name, and what does it."""

    part: str
    name: str
    run: object


class Suite:
    """A run: its device, its deadline, and the results so far."""

    def __init__(self, device, folder, budget_s, results, resumed=False, compiling=True):
        self.device, self.folder = device, folder
        self.results, self.resumed, self.compiling = results, resumed, compiling
        self.deadline = time.monotonic() + budget_s
        self.peak = device_of(device)
        self.slowest = dict(FIRST_GUESS[device.type])

    def remaining(self):
        """Return the seconds left of the budget."""
        return self.deadline - time.monotonic()

    def wait(self):
        """Wait until the device has done what it was given; raises what went wrong there."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def is_alive(self):
        """Return whether the device still works."""
        try:
            self.wait()
        except Exception:
            return False
        return True

    def run(self, items):
        """Do the items in order, leaving out those for which the budget is too short; save after each."""
        for item in items:
            if item.name in self.results.done:
                continue
            if self.remaining() < self.slowest[item.part]:
                self.results.left_out.append(item.name)
                continue
            started = time.monotonic()
            try:
                item.run(self)
            except operations_part.DeviceLost:
                self.results.save(self.folder)
                raise
            except Exception as error:
                message = " ".join(f"{type(error).__name__}: {error}".split())[:400]
                self.results.notes.append(f"{item.name} broke off: {message}")
                if not self.is_alive():
                    self.results.done.append(item.name)
                    self.results.save(self.folder)
                    raise operations_part.DeviceLost(message) from None
            took = time.monotonic() - started
            seen = any(name.startswith(f"{item.part}: ") for name in self.results.done)
            self.slowest[item.part] = max(took, self.slowest[item.part]) if seen else took
            self.results.done.append(item.name)
            self.results.save(self.folder)
            print(f"{took:6.1f} s  {item.name}", flush=True)
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        self.results.save(self.folder)


def items_of(parts, shapes, device):
    """Return the Items of the parts, the most important first."""
    dtypes = ("float16", "bfloat16", "float32") if device.type == "cuda" else ("float32", "bfloat16")
    found = {part: [] for part in PARTS}
    # First what nothing but a device can check.
    first = cases.all_frames(dtypes) if device.type == "cuda" else []
    for case in [*first, *cases.odd(dtypes)]:
        found["check"].append(Item("check", f"check: {case.label}", _bound(operations_part.check, case)))
    for case in cases.full() if shapes == "full" else cases.quick(_quick_dtype(device)):
        found["ops"].append(Item("ops", f"ops: {case.label}", _bound(operations_part.measure, case)))
    if not training_part.why_not(device):
        for step in training_part.steps(shapes, device):
            name = f"steps: {step.label} of {step.frames} frames"
            found["steps"].append(Item("steps", name, _bound(training_part.measure_step, step)))
    if not training_part.why_not(device, memory=True):
        for step in training_part.memory_steps(shapes):
            name = f"memory: {step.label} of {step.frames} frames"
            found["memory"].append(Item("memory", name, _bound(training_part.measure_memory, step)))
    kept = {part: found[part] if part in parts else [] for part in PARTS}
    first, rest = kept["ops"][:CASES_BEFORE_TRAINING], kept["ops"][CASES_BEFORE_TRAINING:]
    return [*kept["check"], *first, *kept["memory"], *kept["steps"], *rest]


def new_results(device, peak):
    """Return empty Results that say on what and with what they were measured."""
    name = device_name(device)
    about = {"name": name, "source": peak.source}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about["capability"] = f"{properties.major}.{properties.minor}"
        about["memory_gib"] = round(properties.total_memory / 2**30, 2)
    else:
        about["threads"] = torch.get_num_threads()
        about["clock"] = "processor time" if cpu_clock() is time.process_time else "wall time"
    about["rates"] = {f"{dtype} FLOP/s": rate for dtype, rate in peak.flops.items()}
    about["rates"] |= {"memory B/s": peak.bytes, "exp/s": peak.exponentials}
    return Results(f"measured on {name}", about, versions(), commit())


def main(arguments=None):
    """Run the suite; return 0 if nothing fell short of the targets, else 1."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
    parts = options.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        raise SystemExit(f"--parts: {', '.join(unknown)} is none of {', '.join(PARTS)}")
    results = load(options.out) if options.resume else new_results(device, device_of(device))
    budget = options.budget_s - (time.monotonic() - started)
    suite = Suite(device, options.out, budget, results, options.resume, not options.no_compile)
    if options.resume:
        results.left_out.clear()  # judged anew
    else:
        for part in ("steps", "memory"):
            if part in parts and (reasons := training_part.why_not(device, part == "memory")):
                results.notes.append(f"part {part} was not run: {'; '.join(reasons)}")
    shapes = options.shapes or ("full" if device.type == "cuda" else "quick")
    try:
        suite.run(items_of(parts, shapes, device))
    except operations_part.DeviceLost:
        _start_again(options, suite.remaining())
    lines = shortfalls(results)
    print("\n".join(lines) or "Nothing falls short of the targets.")
    print(f"{len(results.left_out)} pieces of work left out for time; written to {options.out}/results.md")
    return int(bool(lines))


def _start_again(options, remaining):
    """Replace this process, whose CUDA context is lost, by one that goes on behind what is recorded."""
    again = ["--out", options.out, "--parts", options.parts, "--device", options.device, "--resume"]
    again += ["--budget-s", str(max(0.0, remaining))]
    again += ["--shapes", options.shapes] if options.shapes else []
    again += ["--no-compile"] if options.no_compile else []
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(Path(__file__).resolve()), *again])


def _bound(function, subject):
    return lambda suite: function(subject, suite)


def _quick_dtype(device):
    return "float16" if device.type == "cuda" else "float32"


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="folder of results.json and results.md")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument(
        "--budget-s", type=float, default=540, help="seconds; nothing new is begun near the end"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--shapes", choices=("full", "quick"), help="full on CUDA and quick on a CPU if left out"
    )
    parser.add_argument(
        "--no-compile",
        action="store_true",
        help="leave out rivals that a compiler makes: it can abort the process",
    )
    parser.add_argument("--resume", action="store_true", help="go on behind the results in the folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
