"""Tune the tiles of frame_attention on the GPU at hand and rewrite its rows of kernels/tiles.json. One command:

python -m rcv.benchmarks.tune --budget 1200

Every row of the table for this compute capability (or those of the nearest, copied) is tried with all candidates on a
shape of its size. A tile counts only if its results are right. The table is written after every row.
"""

import argparse
import itertools
import json
import math
import statistics
import time

import torch

from rcv.kernels import attention, attention_dkv, attention_dq
from rcv.kernels.tiles import TABLE, nearest, table, using
from rcv.ops import FrameTable
from rcv.ops.torch_backend import attention as torch_backend

from .timing import Clock

FRAMES = 16
# (tokens, heads) that stand for a head dim: the UNet levels of Stable Diffusion that have it.
LEVELS = {40: (4096, 8), 64: (1024, 10), 80: (1024, 8), 128: (1024, 8), 160: (256, 8)}
OTHER_LEVEL = (256, 8)
CALLS = 7
WORST_RELATIVE_ERROR = 0.005
NAMED = 3  # rejected tiles that a row names


def candidates(kernel, shape):
    """Return the tiles to try for a row: powers of two whose sums fit a multiprocessor.

    Parameters
    ----------
    kernel : str
    shape : dict
        The row's, with `bytes` and `D`.
    """
    blocks = itertools.product((32, 64, 128), (32, 64, 128), (4, 8), (1, 2, 3))
    tiles = [dict(zip(("BLOCK_M", "BLOCK_N", "num_warps", "num_stages"), b, strict=True)) for b in blocks]
    # Float32 sums of a program take half of a multiprocessor's registers at most.
    keys = kernel.endswith("bwd_dkv_kernel")
    row_bytes = 4 * shape["D"] * (2 if keys else 1)
    return [tile for tile in tiles if tile["BLOCK_N" if keys else "BLOCK_M"] * row_bytes <= 1 << 17]


class Problem:
    """Inputs of a row's size, and what each kernel should make of them."""

    def __init__(self, shape, device):
        tokens, heads = LEVELS.get(shape["D"], OTHER_LEVEL)
        tokens = min(tokens, shape.get("N", tokens), shape.get("M", tokens))
        dtype = torch.float16 if shape["bytes"] == 2 else torch.float32
        generator = torch.Generator(device).manual_seed(0)
        self.table = FrameTable.first_memory(FRAMES)

        def normal(frames):
            size = (1, frames, tokens, heads, shape["D"])
            return torch.randn(size, generator=generator, device=device, dtype=dtype)

        self.q, self.do = normal(FRAMES), normal(FRAMES)
        self.pools = [(normal(held), normal(held)) for held in self.table.frames_per_pool]
        self.scale = shape["D"] ** -0.5
        key = self.table.key
        self.o, self.lse = torch_backend.forward(self.q, self.pools, key, None, self.scale)
        self.gradients = torch_backend.backward(
            self.do, self.q, self.pools, self.o, self.lse, key, None, self.scale, False
        )
        self.saved = self.do, self.q, self.pools, self.o, self.lse, key, None, self.scale
        self.statistics = attention_dq.query_gradients(*self.saved, False)[1]

    def call(self, kernel):
        """Return the results of one kernel."""
        if kernel.endswith("fwd_kernel"):
            return [attention.forward(self.q, self.pools, self.table.key, None, self.scale)[0]]
        if kernel.endswith("bwd_dq_kernel"):
            return [attention_dq.query_gradients(*self.saved, False)[0]]
        of_pools = attention_dkv.key_value_gradients(
            self.do, self.q, self.pools, self.statistics, self.table.key, None, self.scale
        )
        return [t for pair in of_pools for t in pair]

    def relative_error(self, kernel):
        """Return the largest relative error of one kernel's results, root mean square."""
        if kernel.endswith("fwd_kernel"):
            truths = [self.o]
        elif kernel.endswith("bwd_dq_kernel"):
            truths = [self.gradients[0]]
        else:
            truths = [t for pair in self.gradients[1] for t in pair]
        return max(
            ((got.double() - truth.double()).square().mean() / truth.double().square().mean()).sqrt().item()
            for got, truth in zip(self.call(kernel), truths, strict=True)
        )


def tuned_row(kernel, row, device, deadline):
    """Return the row with the fastest right tile, its source, and what the nearest others cost.

    Candidates that the deadline cuts off are not tried: the row's own tile comes first, then the most similar.
    """
    problem, clock = Problem(row["shape"], device), Clock(device)
    seconds, failures = [], 0
    others = [tile for tile in candidates(kernel, row["shape"]) if tile != row["tile"]]
    for tile in [row["tile"], *sorted(others, key=lambda other: _distance(other, row["tile"]))]:
        if time.monotonic() > deadline:
            break
        try:
            with using(kernel, tile):
                # Written so that NaN fails.
                if not problem.relative_error(kernel) <= WORST_RELATIVE_ERROR:
                    failures += 1
                    continue
                taken = [clock.seconds(problem.call, kernel)[0] for _ in range(CALLS)]
        except Exception as error:  # does not fit this chip, or does not compile for it
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
    source = f"measured on {torch.cuda.get_device_name(device)}, {best * 1e6:.0f} us"
    return {"shape": row["shape"], "tile": tile, "source": source, "rejected": rejected}


def _distance(tile, other):
    return sum(abs(math.log2(tile[name] / other[name])) for name in tile)


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


def main():
    """Tune what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=float, default=1200, help="seconds in all")
    parser.add_argument(
        "--bytes", type=int, nargs="+", default=[2, 4], help="dtype sizes of the rows to tune"
    )
    parser.add_argument(
        "--head-dims", type=int, nargs="+", help="head dims of the rows to tune; all by default"
    )
    parser.add_argument("--list", action="store_true", help="print the candidates, on any machine, and stop")
    arguments = parser.parse_args()
    entries = table()
    kernels = [kernel for kernel in entries if kernel.startswith("frame_attention")]
    if arguments.list:
        for kernel in kernels:
            shapes = {json.dumps(row["shape"]) for rows in entries[kernel].values() for row in rows}
            for shape in sorted(shapes):
                print(kernel, shape, len(candidates(kernel, json.loads(shape))), "candidates")
        return
    device = torch.device("cuda")
    capability = torch.cuda.get_device_capability(device)
    jobs = []
    for kernel in kernels:
        rows = entries[kernel].setdefault(
            capability, [dict(row) for row in entries[kernel][nearest(entries[kernel], capability)]]
        )
        jobs += [
            (kernel, rows, i)
            for i, row in enumerate(rows)
            if row["shape"]["bytes"] in arguments.bytes
            and row["shape"]["D"] in (arguments.head_dims or [row["shape"]["D"]])
        ]
    end = time.monotonic() + arguments.budget
    for number, (kernel, rows, i) in enumerate(jobs):
        now = time.monotonic()
        rows[i] = tuned_row(kernel, rows[i], device, now + (end - now) / (len(jobs) - number))
        print(kernel, json.dumps(rows[i]), flush=True)
        TABLE.write_text(text_of(entries))


if __name__ == "__main__":
    main()
