"""Print the table of docs/cuda-kernels.md: what each kernel of a build needs, and how many of its blocks fit.

Usage: resources.py MANIFEST.json
"""

import json
import re
import sys
from pathlib import Path

# Per multiprocessor: threads, shared memory in bytes; and 65536 registers, given to warps 256 at a time.
CHIPS = {"sm_70": ("7.0 (V100)", 2048, 96 << 10), "sm_75": ("7.5 (T4)", 1024, 64 << 10)}
REGISTERS = 65536
COLUMNS = (
    *("kernel", "capability", "threads", "rows", "registers", "spilled bytes", "shared bytes", "HMMA"),
    *("blocks", "occupancy"),
)


def blocks_per_multiprocessor(target, kernel):
    """Return how many blocks of a kernel are resident at a time, and the warps of them as a share of the most."""
    _, threads, shared = CHIPS[target]
    of_block = kernel["threads"] // 32 * _rounded_up(kernel["registers"] * 32, 256)
    blocks = min(
        REGISTERS // of_block,
        threads // kernel["threads"],
        shared // _rounded_up(kernel["shared_bytes"], 256),
    )
    return blocks, blocks * kernel["threads"] / threads


def table(manifest):
    """Return the table as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]
    for name, found in sorted(manifest["kernels"].items(), key=lambda item: _natural(item[0])):
        for target, kernel in sorted(found["resources"].items()):
            blocks, occupancy = blocks_per_multiprocessor(target, kernel)
            cells = [name, CHIPS[target][0], kernel["threads"], kernel["rows"], kernel["registers"]]
            cells += [
                kernel["spill_bytes"],
                kernel["shared_bytes"],
                kernel["hmma"],
                blocks,
                f"{occupancy:.0%}",
            ]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _natural(name):
    stem, width = re.fullmatch(r"(.*_[a-z])(\d+)", name).groups()
    return stem, int(width)


def _rounded_up(value, unit):
    return -(-value // unit) * unit


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())), end="")
