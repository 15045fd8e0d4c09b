"""Peak rates of devices: from data sheets where the device is known, measured on the spot where it is not."""

import functools
import platform
import time
from dataclasses import dataclass

import torch

MUFU_PER_CLOCK = (
    16  # exponentials a multiprocessor issues per clock, from 7.0 to 9.0 (CUDA programming guide, 5.4.1)
)
DEFAULT_CACHE = 64 << 20
DEFAULT_KILOHERTZ = 1_500_000  # where PyTorch does not tell a GPU's clock


@dataclass(frozen=True)
class Device:
    """Peak rates.

    Attributes
    ----------
    name : str
    source : str
        "data sheet" or "measured".
    flops : dict of str to float
        FLOP/s of dense matrix products by dtype, float32 accumulation.
    bytes : float
        Memory traffic a second.
    exponentials : float
        exp a second.
    """

    name: str
    source: str
    flops: dict
    bytes: float
    exponentials: float


def _known(half, single, gigabytes, multiprocessors, gigahertz):
    # Chips without bfloat16 units compute it in float16, at that rate.
    return {
        "flops": {"float16": half * 1e12, "bfloat16": half * 1e12, "float32": single * 1e12},
        "bytes": gigabytes * 1e9,
        "exponentials": MUFU_PER_CLOCK * multiprocessors * gigahertz * 1e9,
    }


# All words must stand in the name that CUDA gives; the first match counts.
KNOWN = (
    # NVIDIA V100 data sheet (2020): SXM2 125 TFLOP/s, 15.7 float32, 900 GB/s; 80 multiprocessors at 1.53 GHz
    (("V100", "SXM"), _known(125, 15.7, 900, 80, 1.53)),
    # the same: PCIe 112 TFLOP/s, 14 float32, 900 GB/s, 1.38 GHz
    (("V100",), _known(112, 14, 900, 80, 1.38)),
    # NVIDIA T4 data sheet (2019): 65 TFLOP/s, 8.1 float32, 320 GB/s; 40 multiprocessors at 1.59 GHz
    (("T4",), _known(65, 8.1, 320, 40, 1.59)),
    # NVIDIA A100 data sheet (2021): 312 TFLOP/s, 19.5 float32; 80 GB SXM 2039 GB/s, PCIe 1935; 108 at 1.41 GHz
    (("A100", "80GB", "PCIe"), _known(312, 19.5, 1935, 108, 1.41)),
    (("A100", "80GB"), _known(312, 19.5, 2039, 108, 1.41)),
    # the same: 40 GB 1555 GB/s
    (("A100",), _known(312, 19.5, 1555, 108, 1.41)),
    # NVIDIA H100 data sheet (2023), without sparsity: PCIe 756 TFLOP/s, 51 float32, 2.0 TB/s; 114 at 1.62 GHz, the
    # clock at which 114 x 4096 FLOP make those 756
    (("H100", "PCIe"), _known(756, 51, 2000, 114, 1.62)),
    # the same: SXM 989.4 TFLOP/s, 66.9 float32, 3.35 TB/s; 132 at 1.83 GHz, which make those 989.4
    (("H100", "HBM3"), _known(989.4, 66.9, 3350, 132, 1.83)),
    # NVIDIA H200 data sheet (2024): the H100's rates, 4.8 TB/s
    (("H200",), _known(989.4, 66.9, 4800, 132, 1.83)),
)


def device_of(device):
    """Return the Device for a torch device: from the data sheets by its name, else measured (a second or two).

    Float64, and what a data sheet above does not say, has no rate.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return known_device(torch.cuda.get_device_name(device)) or measured_device(device)
    return measured_device(device)


def known_device(name):
    """Return the Device of this name from the data sheets, or None."""
    words = {word[:3] if word.startswith("SXM") else word for word in name.replace("-", " ").split()}
    for wanted, rates in KNOWN:
        # NVL cards run at other clocks than the board of the same name: they are measured.
        if words.issuperset(wanted) and "NVL" not in words:
            return Device(name, "data sheet", **rates)
    return None


@functools.cache
def measured_device(device):
    """Return the Device of a torch device as its fastest matrix product, copy and exponential show it."""
    cuda = device.type == "cuda"
    flops = {dtype: _matrix_rate(device, dtype, 8192 if cuda else 1024) for dtype in
             ("float16", "bfloat16", "float32")}  # fmt: skip
    elements = 1 << (28 if cuda else 24)
    source = torch.zeros(elements, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / _shortest(lambda: target.copy_(source), device)
    exponentials = _issued_exponentials(device) if cuda else _exponential_rate(source, target)
    return Device(device_name(device), "measured", flops, copied, exponentials)


def device_name(device):
    """Return the name of a torch device: of a GPU as CUDA tells it, of a CPU its model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as lines:
            models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:  # not Linux
        models = []
    return models[0] if models else platform.processor() or platform.machine()


def cache_bytes(device):
    """Return the size of the last-level cache of a torch device."""
    device = torch.device(device)
    if device.type == "cuda":
        return getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or DEFAULT_CACHE
    try:
        with open("/sys/devices/system/cpu/cpu0/cache/index3/size") as size:
            return int(size.read().strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return DEFAULT_CACHE


def _issued_exponentials(device):
    """What the units issue: any kernel of PyTorch's that computes exponentials is bound by memory."""
    properties = torch.cuda.get_device_properties(device)
    hertz = 1e3 * getattr(properties, "clock_rate", DEFAULT_KILOHERTZ)
    return MUFU_PER_CLOCK * properties.multi_processor_count * hertz


def _exponential_rate(source, target):
    # Few enough to stay in a cache.
    few, into = source[: 1 << 15], target[: 1 << 15]
    return few.numel() / _shortest(lambda: torch.exp(few, out=into), source.device, 50)


def cpu_clock():
    """Return the function that tells seconds on a CPU.

    With one thread the processor time of this process, which leaves out what others took of the core; else wall time.
    """
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def _matrix_rate(device, dtype, size):
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in "ab")
    started = time.perf_counter()
    out = a[:64] @ b
    _wait(device)
    # float16 on CPUs without instructions for it is a thousand times slower: one small product tells enough.
    if device.type == "cpu" and time.perf_counter() - started > 0.1:
        return 2 * 64 * size * size / (time.perf_counter() - started)
    del out
    return 2 * size**3 / _shortest(lambda: a @ b, device, 3)


def _shortest(function, device, rounds=5):
    function()
    seconds = []
    now = time.perf_counter if device.type == "cuda" else cpu_clock()
    for _ in range(rounds):
        _wait(device)
        started = now()
        function()
        _wait(device)
        seconds.append(now() - started)
    return min(seconds)


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
