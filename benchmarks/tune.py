"""Tune the tiles of the Triton kernels on the GPU at hand and rewrite kernels/tiles.json. One command:

python -m rcv.benchmarks.tune --budget 1200

Every row of the table for this compute capability (or those of the nearest, copied) is tried with all candidates on a
shape of its size. A tile counts only if its results are right. The table is written after every row. Without a GPU,
`TRITON_INTERPRET=1 python -m rcv.benchmarks.tune --dry-run` goes the same way in Triton's interpreter.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import time

import torch

from rcv.kernels.launch import INTERPRETED_CAPABILITY
from rcv.kernels.shapes import allowing_tf32
from rcv.kernels.tiles import TABLE, nearest, table, using

from .timing import Clock
from .tune_problems import operation_of, problem_of

CALLS = 7
WORST_RELATIVE_ERROR = 0.005
NAMED = 3  # rejected tiles that a row names
DRY_CANDIDATES = 2
CHOICES = {
    "frame_attention": {
        "BLOCK_M": (16, 32, 64, 128),
        "BLOCK_N": (16, 32, 64, 128),
        "num_warps": (4, 8),
        "num_stages": (1, 2, 3),
    },
    "temporal_attention": {"ROWS": (16, 32, 64, 128), "num_warps": (2, 4, 8), "num_stages": (1, 2)},
    "recurrent_scan": {
        "BLOCK_N": (32, 64, 128),
        "BLOCK_C": (32, 64, 128),
        "BLOCK_K": (16, 32, 64),
        "num_warps": (4, 8),
        "num_stages": (2, 3, 4),
    },
}
ELEMENTWISE = {
    "BLOCK_N": (2, 4, 8, 16, 32),
    "BLOCK_C": (64, 128),
    "STAGES": (1, 2, 3, 4),
    "num_warps": (1, 2, 4, 8),
    "num_stages": (2,),
}
THREADS = 32  # of a warp
MOST_SUMS = 1 << 17  # bytes of a program's float32 sums: half of a multiprocessor's registers
ELEMENTS = (2, 16)  # of a thread's state, least and most


def candidates(kernel, shape):
    """Return the tiles to try for a row: powers of two whose sums fit a multiprocessor.

    Parameters
    ----------
    kernel : str
    shape : dict
        The row's.
    """
    operation = operation_of(kernel)
    choices = CHOICES.get(operation, ELEMENTWISE)
    tiles = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    return [tile for tile in tiles if _fits(operation, kernel, shape, tile)]


def _fits(operation, kernel, shape, tile):
    if operation == "frame_attention":
        keys = kernel.endswith("bwd_dkv_kernel")
        # Half-precision blocks of 16 leave the matrix units idle.
        least = 32 if shape["bytes"] == 2 else 16
        row_bytes = 4 * shape["D"] * (2 if keys else 1)
        sums = tile["BLOCK_N" if keys else "BLOCK_M"] * row_bytes
        return min(tile["BLOCK_M"], tile["BLOCK_N"]) >= least and sums <= MOST_SUMS
    if operation in CHOICES:
        return True
    threads = THREADS * tile["num_warps"]
    return ELEMENTS[0] <= tile["BLOCK_N"] * tile["BLOCK_C"] / threads <= ELEMENTS[1]


def tuned_row(kernel, row, device, deadline, dry=False):
    """Return the row with the fastest right tile, its source, and what the nearest others cost.

    Candidates that the deadline cuts off are not tried: the row's own tile comes first, then the most similar. A dry
    run tries `DRY_CANDIDATES` of them on a small problem, and what they raise ends it.
    """
    with allowing_tf32(row["shape"].get("tf32") == 1):
        problem, clock = problem_of(kernel, row["shape"], device, small=dry), Clock(device)
        seconds, failures = [], 0
        others = [tile for tile in candidates(kernel, row["shape"]) if tile != row["tile"]]
        tiles = [row["tile"], *sorted(others, key=lambda other: _distance(other, row["tile"]))]
        for tile in tiles[:DRY_CANDIDATES] if dry else tiles:
            if time.monotonic() > deadline:
                break
            try:
                with using(kernel, tile):
                    # Written so that NaN fails.
                    if not problem.relative_error() <= WORST_RELATIVE_ERROR:
                        failures += 1
                        continue
                    taken = [clock.seconds(problem.run)[0] for _ in range(1 if dry else CALLS)]
            except Exception as error:  # does not fit this chip, or does not compile for it
                if dry:
                    raise
                print(f"  {tile}: {type(error).__name__}")
                failures += 1
                continue
            seconds.append((statistics.median(taken), tile))
    if not seconds:
        return row
    seconds.sort(key=lambda one: one[0])
    best, tile = seconds[0]
    slower = [f"{'x'.join(map(str, t.values()))} +{s / best - 1:.0%}" for s, t in seconds[1 : 1 + NAMED]]
    rejected = ", ".join([*slower, f"{failures} do not run or are wrong"])
    source = f"measured on {_name(device)}, {best * 1e6:.0f} us"
    return {"shape": row["shape"], "tile": tile, "source": source, "rejected": rejected}


def _distance(tile, other):
    return sum(abs(math.log2(tile[name] / other[name])) for name in tile)


def _name(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the interpreter"


def text_of(entries):
    """Return the table as JSON with a line a row."""
    kernels = []
    for kernel, capabilities in entries.items():
        blocks = []
        for capability, rows in sorted(capabilities.items()):
            lines = ",\n".join("      " + json.dumps(row) for row in rows)
            blocks.append(f'    "{".".join(map(str, capability))}": [\n{lines}\n    ]')
        kernels.append(f'  "{kernel}": {{\n' + ",\n".join(blocks) + "\n  }")
    return "{\n" + ",\n".join(kernels) + "\n}\n"


def jobs_of(entries, capability, chosen):
    """Return (kernel, rows, index) of the rows to tune; a capability without rows gets copies of the nearest's.

    Parameters
    ----------
    entries : dict
        The table, which gains those copies.
    capability : tuple of two int
    chosen : argparse.Namespace
        `operations`, `bytes` and `head_dims` to tune; None for all.
    """
    jobs = []
    for kernel, of_kernel in entries.items():
        if chosen.operations and operation_of(kernel) not in chosen.operations:
            continue
        copied = [dict(row) for row in of_kernel[nearest(of_kernel, capability)]]
        rows = of_kernel.setdefault(capability, copied)
        for i, row in enumerate(rows):
            size, width = row["shape"].get("bytes", 2), row["shape"].get("D")
            if size in chosen.bytes and (not chosen.head_dims or width in chosen.head_dims):
                jobs.append((kernel, rows, i))
    return jobs


def main(arguments=None):
    """Tune what the command line asks for."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    entries = table()
    if chosen.list:
        for kernel, of_kernel in entries.items():
            shapes = {json.dumps(row["shape"]) for rows in of_kernel.values() for row in rows}
            for shape in sorted(shapes):
                print(kernel, shape, len(candidates(kernel, json.loads(shape))), "candidates")
        return
    if chosen.dry_run and os.environ.get("TRITON_INTERPRET") != "1":
        parser.error("--dry-run needs Triton's interpreter: set TRITON_INTERPRET=1")
    device = torch.device("cpu" if chosen.dry_run else "cuda")
    capability = INTERPRETED_CAPABILITY if chosen.dry_run else torch.cuda.get_device_capability(device)
    jobs = jobs_of(entries, capability, chosen)
    if chosen.dry_run:
        # One row of every kernel: the others go the same way.
        jobs = list({kernel: job for job in reversed(jobs) for kernel in job[:1]}.values())
    end = time.monotonic() + chosen.budget
    for number, (kernel, rows, i) in enumerate(jobs):
        now = time.monotonic()
        row = tuned_row(kernel, rows[i], device, now + (end - now) / (len(jobs) - number), chosen.dry_run)
        if chosen.dry_run:
            print(kernel, row["rejected"], flush=True)
            continue
        print(kernel, json.dumps(row), flush=True)
        rows[i] = row
        TABLE.write_text(text_of(entries))


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=float, default=1200, help="seconds in all")
    parser.add_argument("--operations", nargs="+", help="whose kernels to tune; all by default")
    parser.add_argument(
        "--bytes", type=int, nargs="+", default=[2, 4], help="dtype sizes of the rows to tune"
    )
    parser.add_argument(
        "--head-dims", type=int, nargs="+", help="head dims of the rows to tune; all by default"
    )
    parser.add_argument("--list", action="store_true", help="print the candidates, on any machine, and stop")
    parser.add_argument("--dry-run", action="store_true", help="tune nothing, in Triton's interpreter")
    return parser


if __name__ == "__main__":
    main()
