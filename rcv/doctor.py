"""What this machine offers and which backend would run each operation: the data and the tables of `rcv doctor`."""

import importlib.metadata
import json
import os
import platform
from dataclasses import asdict, dataclass

import torch
from rich.table import Table

from rcv.ops import registry

DISTRIBUTIONS = (
    "rcv-video",
    "torch",
    "triton",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "xformers",
    "cuda-bindings",
)
DTYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.float16, torch.bfloat16, torch.float32)}


@dataclass(frozen=True)
class Device:
    """One device: its name, compute capability (CUDA), memory in GiB, and cores or multiprocessors."""

    device: str
    name: str
    capability: str | None
    memory_gib: float
    units: int


@dataclass(frozen=True)
class Choice:
    """Which backend runs an operation for one kind of inputs, and why the others do not."""

    operation: str
    device: str
    dtype: str
    backend: str | None
    why_not: dict


@dataclass(frozen=True)
class Report:
    """The machine as rcv sees it.

    Attributes
    ----------
    versions : dict of str to (str or None)
        Python and the packages that matter; None for those that are not installed.
    cuda : str or None
        CUDA version that PyTorch was built with.
    requested : str
        Backend asked for (RCV_BACKEND or `rcv.set_backend`), or "auto".
    devices : list of Device
    operations : list of Choice
    """

    versions: dict
    cuda: str | None
    requested: str
    devices: list
    operations: list


def report():
    """Look at this machine and return a Report."""
    devices = _devices()
    return Report(
        versions={"python": platform.python_version(), **{name: _version(name) for name in DISTRIBUTIONS}},
        cuda=torch.version.cuda,
        requested=registry.requested(),
        devices=devices,
        operations=[choice for device in devices for choice in _choices(device)],
    )


def to_json(report):
    """Return a Report as JSON text."""
    return json.dumps(asdict(report), indent=2)


def render(report, console):
    """Print a Report as tables on a rich console."""
    versions = Table("package", "version", title="Versions")
    for name, version in report.versions.items():
        versions.add_row(name, version or "not installed")
    versions.add_row("CUDA of PyTorch", report.cuda or "none (a CPU build)")
    devices = Table("device", "name", "capability", "memory", "cores", title="Devices")
    for d in report.devices:
        devices.add_row(d.device, d.name, d.capability or "", f"{d.memory_gib:.1f} GiB", str(d.units))
    operations = Table(
        "operation",
        "inputs",
        "runs on",
        "why not the others",
        title=f"Backends (asked for: {report.requested})",
    )
    for choice in _grouped(report.operations):
        reasons = [f"{name}: {'; '.join(why)}" for name, why in choice.why_not.items()]
        operations.add_row(
            choice.operation,
            f"{choice.dtype} on {choice.device}",
            choice.backend or "nothing",
            "\n".join(reasons),
        )
    for table in (versions, devices, operations):
        console.print(table)


def _choices(device):
    kind = device.device.split(":")[0]
    capability = tuple(map(int, device.capability.split("."))) if device.capability else None
    for op in registry.OPERATIONS:
        for dtype in DTYPES[kind]:
            inputs = registry.Inputs(kind, capability, dtype)
            try:
                chosen = registry.choose(op, inputs, registry.requested())
            except registry.BackendError:
                chosen = None
            reasons = {name: backend.why_not(op, inputs) for name, backend in registry.BACKENDS.items()}
            yield Choice(
                op,
                device.device,
                str(dtype).removeprefix("torch."),
                chosen,
                {name: why for name, why in reasons.items() if why},
            )


def _grouped(choices):
    """Join rows that differ in the operation or the dtype alone, so that a reason stands once."""
    groups = {}
    for c in choices:
        groups.setdefault((c.device, c.backend, json.dumps(c.why_not)), []).append(c)
    for same in groups.values():
        first = same[0]
        operations = "\n".join(dict.fromkeys(c.operation for c in same))
        dtypes = ", ".join(dict.fromkeys(c.dtype for c in same))
        yield Choice(operations, first.device, dtypes, first.backend, first.why_not)


def _devices():
    cpu = Device("cpu", _cpu_name(), None, _memory_gib(), _cores())
    return [cpu, *(_cuda_device(i) for i in range(torch.cuda.device_count()))]


def _cuda_device(i):
    properties = torch.cuda.get_device_properties(i)
    capability = f"{properties.major}.{properties.minor}"
    return Device(
        f"cuda:{i}",
        properties.name,
        capability,
        properties.total_memory / 2**30,
        properties.multi_processor_count,
    )


def _cpu_name():
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _cores():
    # Cores this process may use: containers and batch systems often lend fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_gib():
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return float("nan")


def _version(distribution):
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
