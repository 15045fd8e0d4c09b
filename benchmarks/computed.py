"""What the targets' cases must do at least, and how fast an H200 could do it: docs/computed.md, without any device.

The bounds are those that the suite compares measurements with. Beside attention stands the same for its fastest
rivals, with all that they do besides: what is left of a target if both were perfect.
"""

from dataclasses import dataclass

from .bounds import DIRECTIONS, LSE_BYTES, Work, bound, work
from .cases import ELEMENTWISE, SD1_LEVELS, Case
from .devices import known_device

DEVICE = "NVIDIA H200"
FRAMES = (16, 32)
VIDEOS = (1, 2)
DTYPE = "float16"  # bfloat16 has the same bytes and the same rate
FLASH_WIDTHS = (32, 64, 96, 128, 192, 256)  # head dims of PyTorch's flash kernels; others are padded


@dataclass(frozen=True)
class Rival:
    """What a program of several kernels does at least: the Work of its attention, and bytes that it copies besides."""

    work: Work
    copied: int

    def seconds(self, device, dtype):
        """Return the least seconds on a device: its kernels run one after the other."""
        return bound(self.work, device, dtype).seconds + self.copied / device.bytes


def rival_of(case, direction):
    """Return the Rival of an attention case: concatenation or transposes around SDPA's flash kernel.

    It is granted the same scores, and copies at full bandwidth. A backward finds the copied keys and values saved.
    """
    least = work(case, direction)
    padded = min(width for width in FLASH_WIDTHS if width >= case.head_dim)
    flops = least.flops // case.head_dim * padded
    size = case.torch_dtype.itemsize
    rows = case.videos * case.frames * case.tokens * case.heads
    queries = rows * case.head_dim * size
    if case.operation == "temporal_attention":
        # q, k, v and the output's gradient, or the output and dq, dk, dv, are read and written again.
        moved = 4 * 2 * queries
        attention = 4 * queries if direction == "forward" else 8 * queries
        return Rival(Work(flops, least.exponentials, attention), moved)
    table = case.frame_table()
    slots = sum(p >= 0 for row in table.rows for p in row)
    joined = 2 * case.videos * slots * case.keys * case.channels * size
    pools = 2 * case.videos * sum(table.frames_per_pool) * case.keys * case.channels * size
    passes = 1 if direction == "forward" else 2  # keys and values; in the backward their gradients too
    others = (2 if direction == "forward" else 4) * queries + rows * LSE_BYTES
    # The pools are read and the concatenation is written, or its gradient is read and summed into the pools'.
    return Rival(Work(flops, least.exponentials, passes * joined + others), pools + joined)


def cases():
    """Return the Cases, by operation."""
    attention = {"frame_attention": {"table": "first_memory"}, "temporal_attention": {}}
    kinds = {**attention, "recurrent_scan": {"activation": "tanh"}, **{name: {} for name in ELEMENTWISE}}
    return [
        Case(operation, frames, *level, DTYPE, videos, **kind)
        for operation, kind in kinds.items()
        for level in SD1_LEVELS
        for frames in FRAMES
        for videos in VIDEOS
    ]


def page():
    """Return docs/computed.md."""
    device = known_device(DEVICE)
    rates = f"{device.flops[DTYPE] / 1e12:.0f} TFLOP/s, {device.bytes / 1e12:.1f} TB/s, "
    lines = [
        "# Computed bounds",
        "",
        "All figures are *computed*, none is measured: what the cases of the [targets](targets.md) must do at least in "
        f"{DTYPE} or bfloat16, and the time that no program can beat on an {DEVICE} ({device.source}: {rates}"
        f"{device.exponentials / 1e12:.1f} T exponentials/s). Written by `python -m benchmarks.publish` from "
        "`benchmarks/computed.py`; `python benchmarks/gpu_suite.py --out DIR` measures the same on a device.",
        "",
        "* GFLOP: of matrix products at exact head dims. A backward is granted its five products.",
        "* MB: inputs read once and outputs written once.",
        "* bound: the slowest of matrix units, exponential units and memory, each at its peak, all at once.",
        "* rival: the same of PyTorch's flash kernel with its padded head dims, and of the concatenation "
        "(frame_attention) or the transposes (temporal_attention) around it at full bandwidth; how often the bound "
        "goes into it. A target above that ratio can be met only as far as the rival is further from its own bound.",
    ]
    for operation in dict.fromkeys(case.operation for case in cases()):
        for direction in DIRECTIONS:
            lines += ["", f"## {operation}, {direction}", ""]
            of_it = [case for case in cases() if case.operation == operation]
            lines += _table(of_it, direction, device)
    return "\n".join(lines) + "\n"


def _table(cases, direction, device):
    with_rival = "attention" in cases[0].operation
    head = ["case", "GFLOP", "million exponentials", "MB", "bound ms"]
    head += ["rival ms", "rival / bound"] if with_rival else []
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for case in cases:
        least = work(case, direction)
        limit = bound(least, device, case.dtype)
        size = f"B{case.videos} F{case.frames} N{case.tokens} H{case.heads} D{case.head_dim}"
        amounts = (least.flops / 1e9, least.exponentials / 1e6, least.bytes / 1e6)
        cells = [size, *(f"{amount:.0f}" if amount >= 1000 else f"{amount:.3g}" for amount in amounts)]
        cells.append(f"{limit.seconds * 1e3:.3g} ({limit.kind})")
        if with_rival:
            rival = rival_of(case, direction).seconds(device, case.dtype)
            cells += [f"{rival * 1e3:.3g}", f"{rival / limit.seconds:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
