"""What the model of time says of frame_attention on a V100, and of what was published: `docs/v100-model.md`.

    python -m benchmarks.v100_model [--json]

Run in a checkout whose kernels are built. Our kernels are read from their cubins, those of others from v100_peers.json.
Everything is computed: no V100 was at hand.
"""

import argparse
import heapq
import importlib.util
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .bounds import work
from .cases import Case
from .sass import Phase, instructions_of, loop_of, phases_of
from .v100_time import Kernel, bank_cycles, shared_cycles, turn_of

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "rcv" / "csrc"
MULTIPROCESSORS, SXM2_HERTZ, PCIE_HERTZ = 80, 1.53e9, 1.38e9  # NVIDIA V100 data sheet, boost clocks
MEMORY_BYTES = 750e9  # a second, measured: Jia et al., arXiv:1804.06826
CAT_MULTIPROCESSORS, CAT_HEADS = 72, 6  # sm70_fa2_d256_prefill_pipeline.md of 1Cat-vLLM
GEMM_TILE, GEMM_DEPTH = (256, 128), 32
PADDED = 64
TARGET = 1.4
# Products over the scores of each kernel, and those whose b is transposed (multiply_transposed of csrc/tile.cuh).
PRODUCTS = {"fwd": 2, "bwd_dq": 3, "bwd_dkv": 4}
TRANSPOSED = {"fwd": 1, "bwd_dq": 2, "bwd_dkv": 2}
PADDED_PRODUCTS = {"forward": 2, "backward": 5}
DIRECTIONS = {"forward": ("fwd",), "backward": ("bwd_dq", "bwd_dkv")}
WIDTHS = (40, 64, 80, 160)
# Stable Diffusion 1.x at 512x512 and 320x512 pixels: the level with 40 channels a head.
CASES = tuple(Case("frame_attention", 32, tokens, 8, 40, table="first_memory") for tokens in (4096, 2560))
RESOURCES = ("issue", "matrix", "float", "integer", "exp", "shared", "memory")


@dataclass(frozen=True)
class Figure:
    """A figure measured on a V100, and what the model says: TFLOP/s."""

    name: str
    measured: tuple
    computed: float
    source: str

    @property
    def ratio(self):
        """Computed over measured, of a range its middle."""
        return self.computed / (sum(self.measured) / 2)


@dataclass(frozen=True)
class Comparison:
    """A case in one direction: milliseconds of ours and of the 64-padded design."""

    case: Case
    direction: str
    own: float
    padded: float

    @property
    def ratio(self):
        """How many times faster ours is."""
        return self.padded / self.own


def peers():
    """Return {name: Kernel} of v100_peers.json."""
    found = {}
    for name, peer in json.loads(Path(__file__).with_name("v100_peers.json").read_text()).items():
        phases = tuple(Phase(**row) for row in peer["phases"])
        extra = 0.0
        if "load_cycles" in peer:  # of a block in a turn, measured
            extra = peer["load_cycles"] / peer["warps"] - sum(shared_cycles(p.shared_loads) for p in phases)
        found[name] = Kernel(
            name,
            phases,
            peer["warps"],
            peer["blocks"],
            peer["flops"],
            extra,
            0.0,
            peer.get("fetched_share", 1.0),
        )
    return found


def own_kernel(direction, head_dim):
    """Return the Kernel of frame_attention as it was built: direction "fwd", "bwd_dq" or "bwd_dkv"."""
    name = f"frame_attention_{direction}_kernel_d{head_dim}"
    manifest = json.loads((KERNELS / "manifest.json").read_text())["kernels"][name]
    resources = manifest["resources"]["sm_70"]
    code = (KERNELS / f"{manifest['source']}.sm_70").read_bytes()
    phases = tuple(phases_of(loop_of(instructions_of(code, name))))
    warps = resources["threads"] // 32
    products = sum(p.matrix for p in phases)
    # One load of 16 bytes serves two m8n8k4 with a transposed b, the other loads of 16 bytes are of operands a.
    transposed = products * TRANSPOSED[direction] / PRODUCTS[direction]
    operands = sum(p.shared_loads.get("16", 0) for p in phases) - transposed / 2
    stores = sum(p.shared_stores.get("4", 0) for p in phases)
    return Kernel(
        name,
        phases,
        warps,
        _occupancy().blocks_per_multiprocessor("sm_70", resources)[0],
        products * warps * 2 * 4 * 8 * 8 * 4,
        operands * (operand_cycles() - shared_cycles({"16": 1})),
        stores * (store_cycles() - shared_cycles({"4": 1})),
    )


def operand_cycles():
    """Return the cycles of `load_operand` of csrc/tile.cuh on 7.0; without bank conflicts they would be 4."""
    return bank_cycles([_ROW * (_quad_pair_row(lane) + lane % 4) for lane in range(32)], 16)


def store_cycles():
    """Return the cycles of one write of `store_rows` of csrc/tile.cuh on 7.0; without bank conflicts 1."""
    rows = [_quad_pair_row(lane) + lane % 2 for lane in range(32)]
    return bank_cycles([_ROW * row + 2 * (lane & 2) for lane, row in enumerate(rows)], 4)


_ROW = 2 * 72  # bytes from row to row for 64 columns; `padded` makes it an odd number of 16 bytes for all


def _quad_pair_row(lane):
    return 8 * (lane // 4 % 4) + 4 * (lane // 16)


def figures(kernels):
    """Return the Figures: what was published of V100s, beside the model's answer for the same work."""
    gemm, cat = turn_of(kernels["cuBLAS"]).cycles, turn_of(kernels["1Cat"]).cycles
    unmeasured = turn_of(replace(kernels["1Cat"], extra_loads=0.0)).cycles
    issue, ledger = "lablup/mlxcel issue 1654", "1Cat-vLLM, sm70_fa2_d256_prefill_pipeline.md"
    table = "zzc0721/torch-performance-test-data issue 140"
    return [
        Figure("cuBLAS, m = 2048, PCIe", (95, 100), _gemm(2048, 17408, 5120, gemm, PCIE_HERTZ), issue),
        Figure("1Cat, D = 256, 8192 queries", (38, 38), _cat(8192, 8192, cat, SXM2_HERTZ), ledger),
        Figure("1Cat, 4096 of 8192, at 1.312 GHz", (33.2, 33.2), _cat(4096, 8192, cat, 1.312e9), ledger),
        Figure("1Cat, without the conflicts", (38, 38), _cat(8192, 8192, unmeasured, SXM2_HERTZ), ledger),
        Figure("cuBLAS, 4096^3, SXM2", (95.7, 95.7), _gemm(4096, 4096, 4096, gemm, SXM2_HERTZ), table),
        Figure("cuBLAS, 8192^3, SXM2", (97.4, 97.4), _gemm(8192, 8192, 8192, gemm, SXM2_HERTZ), table),
    ]


def _gemm(m, n, k, cycles, hertz):
    rows, columns = GEMM_TILE
    waves = -(-(m // rows) * (n // columns) // MULTIPROCESSORS)
    return 2 * m * n * k / (waves * (k // GEMM_DEPTH) * cycles / hertz) / 1e12


def _cat(queries, keys, cycles, hertz):
    """TFLOP/s of attended pairs; blocks of 64 queries start in order, on the first multiprocessor that is free."""
    free = [0] * CAT_MULTIPROCESSORS
    for block in [*range(queries // 64)] * CAT_HEADS:
        heapq.heapreplace(free, free[0] + (keys - queries + 64 * (block + 1)) // 32)
    pairs = queries * (keys - queries) + queries * (queries + 1) // 2
    return CAT_HEADS * pairs * 4 * 256 / (max(free) * cycles / hertz) / 1e12


def comparisons(kernels):
    """Return a Comparison for each of CASES and direction."""
    return [
        Comparison(case, direction, _own_ms(case, direction), _padded_ms(case, direction, kernels))
        for case in CASES
        for direction in DIRECTIONS
    ]


def _own_ms(case, direction):
    return sum(
        _ms(case, direction, own_kernel(kernel, case.head_dim), PRODUCTS[kernel], case.head_dim)
        for kernel in DIRECTIONS[direction]
    )


def _padded_ms(case, direction, kernels):
    return _ms(case, direction, kernels[f"64-padded {direction}"], PADDED_PRODUCTS[direction], PADDED)


def _ms(case, direction, kernel, products, head_dim):
    """Of as many blocks as fill the device evenly: neither side pays for a last wave or for where a block starts."""
    scores = work(case, "forward").exponentials
    in_a_turn = kernel.flops / (2 * products * head_dim)
    turns = scores / in_a_turn / kernel.blocks / MULTIPROCESSORS
    memory = work(case, direction).bytes / MEMORY_BYTES
    return 1e3 * max(turns * turn_of(kernel).cycles / SXM2_HERTZ, memory)


def _occupancy():
    spec = importlib.util.spec_from_file_location("resources", ROOT / "csrc" / "resources.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tables(kernels):
    """Return the tables of docs/v100-model.md as Markdown."""
    rows = [
        (
            f.name,
            " to ".join(f"{x:g}" for x in sorted(set(f.measured))),
            f"{f.computed:.1f}",
            f"{f.ratio:.2f}",
            f.source,
        )
        for f in figures(kernels)
    ]
    lines = _table(("figure", "measured TFLOP/s", "computed", "computed / measured", "source"), rows)
    loops = [*kernels.values(), *(own_kernel(kernel, width) for width in WIDTHS for kernel in PRODUCTS)]
    head = ("loop", "blocks", "cycles a turn", "alone", *RESOURCES, "TFLOP/s", "without bank conflicts")
    lines += ["", *_table(head, map(_loop_row, loops))]
    rows = [
        (f"F{c.case.frames} N{c.case.tokens} H{c.case.heads} D{c.case.head_dim}", c.direction,
         f"{c.own:.3g}", f"{c.padded:.3g}", f"{c.ratio:.2f}")
        for c in comparisons(kernels)
    ]  # fmt: skip
    head = ("first frame and memory", "direction", "ours, ms", "64-padded, ms", "times as fast")
    return "\n".join([*lines, "", *_table(head, rows)]) + "\n"


def _loop_row(kernel):
    turn = turn_of(kernel)
    free = replace(kernel, extra_loads=0.0, extra_stores=0.0)
    demands = (f"{turn.demands[name]:.0f}" for name in RESOURCES)
    return (
        *(kernel.name, str(kernel.blocks), f"{turn.cycles:.0f}", f"{turn.alone:.0f}", *demands),
        f"{_tflops(kernel, turn):.1f}",
        f"{_tflops(free, turn_of(free)):.1f}" if free != kernel else "",
    )


def _range(values):
    return " to ".join(f"{x:g}" for x in sorted(set(values)))


def _tflops(kernel, turn):
    return kernel.flops * kernel.blocks / turn.cycles * MULTIPROCESSORS * SXM2_HERTZ / 1e12


def _table(head, rows):
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def as_json(kernels):
    """Return the figures and comparisons as JSON text."""
    return json.dumps(
        {
            "label": "computed",
            "figures": [{**asdict(f), "ratio": f.ratio} for f in figures(kernels)],
            "comparisons": [{**asdict(c), "ratio": c.ratio} for c in comparisons(kernels)],
            "target": TARGET,
        },
        indent=1,
    )


def main(arguments=None):
    """Print the tables, or with --json the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print figures and comparisons as JSON")
    options = parser.parse_args(arguments)
    kernels = peers()
    print(as_json(kernels) if options.json else tables(kernels), end="")


if __name__ == "__main__":
    main()
