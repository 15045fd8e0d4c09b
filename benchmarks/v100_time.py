"""How long a loop takes on a V100: what its phases ask of a multiprocessor, shared by the blocks that are resident.

In a phase the warps of a block advance as fast as their scarcest resource lets them; phases follow each other. Blocks
on one multiprocessor slow each other where together they ask more of a resource than there is. The assumptions are in
docs/v100-model.md.
"""

from collections import Counter
from dataclasses import dataclass

PARTITIONS = 4  # NVIDIA Volta white paper: schedulers of a multiprocessor, each issues an instruction a cycle
# Cycles that one warp's instruction takes of a partition's pipe: 16 lanes of float32, 16 of integers, 4 special ones
# (the same). Conversions to half go to the special lanes (CUDA C++ Programming Guide, arithmetic instructions).
FMA_CYCLES, ALU_CYCLES, SPECIAL_CYCLES = 2, 2, 8
MATRIX_CYCLES = 8.38  # an m8n8k4, measured with four chains: 1Cat-vLLM, sm70_hmma_pipeline_search.md
SHARED_BYTES = 128  # of shared memory a cycle (white paper)
L2_BYTES = 2155e9 / 1.38e9 / 80  # a cycle and multiprocessor: Jia et al., arXiv:1804.06826
# Cycles, measured, sm70_hmma_pipeline_search.md: a load that hits L2; store to shared memory, barrier, load behind it.
LOAD_LATENCY, EXCHANGE_LATENCY = 210.7, 33.6

TURNS, WARM_UP = 24, 4
_SMALL = 0.02  # a share of a resource below which a phase is not held up by others


@dataclass(frozen=True)
class Kernel:
    """A kernel's loop, and how it is launched.

    Attributes
    ----------
    name : str
    phases : tuple of sass.Phase
        One turn of the loop, per warp.
    warps, blocks : int
        Warps of a block, blocks resident on a multiprocessor.
    flops : float
        Of a block's products in a turn, padding included.
    extra_loads, extra_stores : float
        Cycles that bank conflicts add to a warp's loads of 16 and stores of 4 bytes in a turn.
    fetched_share : float
        Of the bytes that loads from global memory could bring: lanes beyond the head dim are switched off.
    """

    name: str
    phases: tuple
    warps: int
    blocks: int
    flops: float
    extra_loads: float = 0
    extra_stores: float = 0
    fetched_share: float = 1


@dataclass(frozen=True)
class Turn:
    """What the model says of a loop.

    Attributes
    ----------
    cycles : float
        From turn to turn of a block, with all blocks resident.
    alone : float
        The same with one block.
    demands : dict of str to float
        Cycles of each resource that a block takes in a turn.
    """

    cycles: float
    alone: float
    demands: dict

    @property
    def bound(self):
        """The scarcest resource."""
        return max(self.demands, key=self.demands.get)


def turn_of(kernel):
    """Return the Turn of a Kernel's loop."""
    demands = demands_of(kernel)
    alone = _cycles(kernel.phases, demands, 1)
    together = _cycles(kernel.phases, demands, kernel.blocks) if kernel.blocks > 1 else alone
    return Turn(together, alone, {name: sum(d[name] for d in demands) for name in demands[0]})


def demands_of(kernel):
    """Return, for each phase, {resource: cycles} that the warps of one block take."""
    of_partition = kernel.warps / PARTITIONS
    loads = sum(p.shared_loads.get("16", 0) for p in kernel.phases)
    stores = sum(p.shared_stores.get("4", 0) for p in kernel.phases)
    found = []
    for p in kernel.phases:
        fetched = 32 * p.fetched * kernel.fetched_share
        shared = p.shuffles + shared_cycles(p.shared_loads) + shared_cycles(p.shared_stores)
        shared += fetched / SHARED_BYTES  # loads from global memory come the same way
        shared += kernel.extra_loads * p.shared_loads.get("16", 0) / max(1, loads)
        shared += kernel.extra_stores * p.shared_stores.get("4", 0) / max(1, stores)
        found.append(
            {
                "issue": of_partition * p.issued,
                "matrix": of_partition * p.matrix * MATRIX_CYCLES,
                "float": of_partition * p.fma * FMA_CYCLES,
                "integer": of_partition * p.alu * ALU_CYCLES,
                "exp": of_partition * p.special * SPECIAL_CYCLES,
                "shared": kernel.warps * shared,
                "memory": kernel.warps * fetched / L2_BYTES,
            }
        )
    return found


def shared_cycles(accesses):
    """Return the cycles that a warp's accesses {width in bytes: number} take of shared memory, without conflicts."""
    return sum(number * max(1, int(width) * 32 / SHARED_BYTES) for width, number in accesses.items())


def bank_cycles(addresses, width):
    """Return the cycles that one access to shared memory takes, bank conflicts included.

    Parameters
    ----------
    addresses : sequence of int
        Of the 32 lanes, in bytes.
    width : int
        Bytes a lane. 16 bytes go eight lanes at a time, 8 bytes sixteen: 128 bytes a cycle.
    """
    lanes = SHARED_BYTES // width
    cycles = 0
    for start in range(0, 32, lanes):
        words = {a // 4 + i for a in addresses[start : start + lanes] for i in range(width // 4)}
        cycles += max(Counter(word % 32 for word in words).values())
    return cycles


class _Block:
    """Where a block is in its loop."""

    def __init__(self, delay):
        self.phase, self.left, self.delay = 0, 1.0, delay
        self.loaded = -LOAD_LATENCY  # when the last load was issued
        self.turns, self.first, self.last = 0, 0.0, 0.0

    def enter(self, phases, now):
        phase = phases[self.phase]
        self.left = 1.0
        if phase.barrier:
            self.delay += EXCHANGE_LATENCY
        if phase.awaits:
            self.delay = max(self.delay, self.loaded + LOAD_LATENCY - now)

    def advance(self, phases, share, now, rate):
        phase, done = phases[self.phase], 1 - self.left
        self.left -= share
        if phase.fetches_at is not None and done <= phase.fetches_at < done + share:
            self.loaded = now - (done + share - phase.fetches_at) / rate
        if self.left > 1e-9:
            return
        self.phase = (self.phase + 1) % len(phases)
        if self.phase == 0:
            self.turns += 1
            self.first = now if self.turns == WARM_UP else self.first
            self.last = now
        self.enter(phases, now)


def _cycles(phases, demands, blocks):
    """Cycles from turn to turn of `blocks` blocks that started evenly apart, averaged over turns and blocks."""
    least = [max(d.values()) for d in demands]
    resident = [_Block(delay=sum(least) * j / blocks) for j in range(blocks)]
    for block in resident:
        block.enter(phases, 0.0)
    now = 0.0
    while min(block.turns for block in resident) < TURNS:
        running = [block for block in resident if block.delay <= 1e-9]
        rates = _rates(running, demands, least)
        ends = [block.left / rate for block, rate in zip(running, rates, strict=True)]
        step = min([*ends, *(block.delay for block in resident if block.delay > 1e-9)])
        now += step
        for block in resident:
            if block in running:
                rate = rates[running.index(block)]
                block.advance(phases, step * rate, now, rate)
            else:
                block.delay -= step
    return sum((block.last - block.first) / (block.turns - WARM_UP) for block in resident) / blocks


def _rates(running, demands, least):
    """Shares of their phase that blocks do in a cycle: a resource asked too much of holds all of its users up alike."""
    asked = Counter()
    for block in running:
        for name, cycles in demands[block.phase].items():
            asked[name] += cycles / least[block.phase]
    return [
        min(
            [1.0]
            + [
                1 / asked[name]
                for name, cycles in demands[block.phase].items()
                if cycles > _SMALL * least[block.phase]
            ]
        )
        / least[block.phase]
        for block in running
    ]
