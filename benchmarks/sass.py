"""The loop of a kernel for compute capability 7.0, read from its cubin and cut into phases that cannot overlap.

Instructions have 16 bytes. Opcodes, registers and widths are where cuobjdump shows ptxas to put them; no other tool is
needed.

    python -m benchmarks.sass CUBIN KERNEL [--skip 0x30f0 ...]

prints the phases as JSON, which is how those of kernels that are not ours came into v100_peers.json. `--skip` names the
branches that are taken: what the measured call does not do.
"""

import argparse
import dataclasses
import json
import struct
from dataclasses import dataclass
from pathlib import Path

from rcv.kernels import cubin

SIZE = 16
_OPCODE = 0x1FF  # the bits above say where operands are
MATRIX, BRANCH, BARRIER, SHUFFLE = 0x36, 0x147, 0x11D, 0x189
LOADS = (0x180, 0x181)  # LD, LDG
LOAD_SHARED, STORE_SHARED, STORE_GLOBAL = 0x184, 0x188, 0x186
FMA = (0x20, 0x21, 0x23, 0x24, 0x25, 0x30, 0x31, 0x32)  # FMUL, FADD, FFMA, IMAD, HADD2, HFMA2, HMUL2
SPECIAL = (0x104, 0x105, 0x106, 0x107, 0x108, 0x110, 0x111, 0x112)  # conversions, MUFU
ALU = range(0x02, 0x20)  # moves, selections, minimum, comparisons, logic, shifts, sums
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 8, 6: 16}
_ALWAYS = 7  # the predicate that is true
STEPS = 4  # instructions of one m8n8k4
GAP = 64  # instructions without a product that separate two runs of products, not two products


@dataclass(frozen=True)
class Instruction:
    """One instruction: where it is, what it does, and what of its operands the model needs.

    Attributes
    ----------
    address, opcode : int
    guarded : bool
        Whether a predicate can switch it off.
    target : int or None
        Where a branch goes.
    width : int
        Bytes a lane, of loads and stores.
    written, stored : int
        First register that a load writes, that a store reads.
    """

    address: int
    opcode: int
    guarded: bool
    target: int | None
    width: int
    written: int
    stored: int


@dataclass(frozen=True)
class Phase:
    """Instructions of one warp between two points that its block, or its data, waits for.

    Attributes
    ----------
    issued, matrix, fma, alu, special : int
        Instructions in all, and those of the pipes; `matrix` counts m8n8k4, four instructions each.
    shuffles : int
    shared_loads, shared_stores : dict of str to int
        Number by width in bytes.
    fetched : int
        Bytes of global memory that a lane's loads ask for.
    barrier : bool
        Whether the phase begins at a barrier of the block.
    awaits : bool
        Whether it begins by waiting for loads that an earlier phase issued.
    fetches_at : float or None
        Where in the phase the last load from global memory is issued, 0 to 1.
    """

    issued: int = 0
    matrix: float = 0
    fma: int = 0
    alu: int = 0
    special: int = 0
    shuffles: int = 0
    shared_loads: dict = dataclasses.field(default_factory=dict)
    shared_stores: dict = dataclasses.field(default_factory=dict)
    fetched: int = 0
    barrier: bool = False
    awaits: bool = False
    fetches_at: float | None = None


def instructions_of(code, kernel):
    """Return the Instructions of a kernel in a cubin (bytes).

    Raises
    ------
    ValueError
        If the cubin does not hold the kernel.
    """
    sections = cubin.sections_of(code)
    if f".text.{kernel}" not in sections:
        raise ValueError(f"no kernel {kernel} in this cubin")
    section = sections[f".text.{kernel}"]
    return [_decoded(code, section.offset, at) for at in range(0, section.size, SIZE)]


def loop_of(instructions, skip=None):
    """Return the Instructions that one turn of the main loop executes, in order.

    Parameters
    ----------
    instructions : list of Instruction
    skip : collection of int, optional
        Addresses of forward branches that are taken. If left out those are, that lead around a loop without products or
        around a store to global memory: in our kernels the search for the next frame, and the bias's gradient.

    Notes
    -----
    The main loop is the shortest with the most products. A loop inside it takes two turns: the products of PyTorch's
    kernels over 64 channels or keys, 32 at a time.
    """
    start, end = _main_loop(instructions)
    body = [i for i in instructions if start <= i.address <= end]
    places = {i.address: n for n, i in enumerate(body)}
    executed, repeated, n = [], set(), 0
    while n < len(body):
        i = body[n]
        executed.append(i)
        n += 1
        if i.opcode != BRANCH or i.target not in places or i.address == end:
            continue
        if i.target < i.address:
            again = i.address not in repeated
            repeated.add(i.address)
        else:
            around = body[n : places[i.target]]
            again = not i.guarded or (i.address in skip if skip is not None else _is_aside(around))
        if again:
            n = places[i.target]
    return executed


def phases_of(executed):
    """Return the Phases of one turn, from its first barrier on.

    A phase ends at a barrier; behind a run of products, whose results what follows needs; and before the first store of
    what was loaded from global memory.
    """
    first = next((n for n, i in enumerate(executed) if i.opcode == BARRIER), 0)
    turn = executed[first:] + executed[:first]
    ends = _ends_of_products(turn)
    pending = _registers_in_flight(turn)
    phases, current = [], []
    for n, i in enumerate(turn):
        waits = i.opcode == STORE_SHARED and i.stored in pending
        if current and (waits or i.opcode == BARRIER):
            phases.append(current)
            current = []
        if waits:
            pending.clear()
        pending |= _loaded(i)
        current.append((i, waits))
        if n in ends:
            phases.append(current)
            current = []
    return [_phase(held) for held in (*phases, current) if held]


def _main_loop(instructions):
    loops = [(i.target, i.address) for i in instructions if i.target is not None and i.target < i.address]
    products = {
        loop: sum(i.opcode == MATRIX and loop[0] <= i.address <= loop[1] for i in instructions)
        for loop in loops
    }
    return max(loops, key=lambda loop: (products[loop], loop[0] - loop[1]))


def _is_aside(instructions):
    loops = any(i.target is not None and i.target < i.address for i in instructions)
    products = any(i.opcode == MATRIX for i in instructions)
    return (loops and not products) or any(i.opcode == STORE_GLOBAL for i in instructions)


def _ends_of_products(turn):
    """Places of products behind which a barrier, or at least GAP other instructions, come first."""
    places = [n for n, i in enumerate(turn) if i.opcode == MATRIX]
    barriers = [n for n, i in enumerate(turn) if i.opcode == BARRIER]
    return {
        n
        for n, following in zip(places, [*places[1:], len(turn) + GAP], strict=True)
        if following - n > GAP or any(n < barrier < following for barrier in barriers)
    }


def _registers_in_flight(turn):
    """Registers that the end of a turn loads for the start of the next."""
    pending = set()
    for i in turn:
        if i.opcode == STORE_SHARED and i.stored in pending:
            pending.clear()
        pending |= _loaded(i)
    return pending


def _loaded(instruction):
    if instruction.opcode not in LOADS:
        return set()
    return set(range(instruction.written, instruction.written + max(1, instruction.width // 4)))


def _phase(held):
    """The Phase of [(instruction, whether it waits for loads)]."""
    instructions = [i for i, _ in held]
    opcodes = [i.opcode for i in instructions]
    loads = [n for n, i in enumerate(instructions) if i.opcode in LOADS]
    return Phase(
        issued=len(held),
        matrix=opcodes.count(MATRIX) / STEPS,
        fma=sum(opcode in FMA for opcode in opcodes),
        alu=sum(opcode in ALU for opcode in opcodes),
        special=sum(opcode in SPECIAL for opcode in opcodes),
        shuffles=opcodes.count(SHUFFLE),
        shared_loads=_by_width(i for i in instructions if i.opcode == LOAD_SHARED),
        shared_stores=_by_width(i for i in instructions if i.opcode == STORE_SHARED),
        fetched=sum(instructions[n].width for n in loads),
        barrier=opcodes[0] == BARRIER,
        awaits=held[0][1],
        fetches_at=loads[-1] / len(held) if loads else None,
    )


def _by_width(instructions):
    counts = {}
    for i in instructions:
        counts[str(i.width)] = counts.get(str(i.width), 0) + 1
    return counts


def _decoded(code, start, at):
    low, high = struct.unpack_from("<QQ", code, start + at)
    opcode = low & _OPCODE
    target = None
    if opcode == BRANCH:
        target = at + SIZE + struct.unpack_from("<i", code, start + at + 4)[0]
    return Instruction(
        address=at,
        opcode=opcode,
        guarded=low >> 12 & 0xF != _ALWAYS or high >> 23 & 0xF != _ALWAYS,
        target=target,
        width=_WIDTHS.get(high >> 9 & 7, 4),
        written=low >> 16 & 0xFF,
        stored=low >> 32 & 0xFF,
    )


def main(arguments=None):
    """Print the phases of a kernel's main loop."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cubin", type=Path)
    parser.add_argument("kernel")
    parser.add_argument("--skip", nargs="*", type=lambda text: int(text, 16), help="branches that are taken")
    options = parser.parse_args(arguments)
    instructions = instructions_of(options.cubin.read_bytes(), options.kernel)
    phases = phases_of(loop_of(instructions, options.skip))
    default = dataclasses.asdict(Phase())
    rows = [{k: v for k, v in dataclasses.asdict(phase).items() if v != default[k]} for phase in phases]
    print("[" + ",\n".join(map(json.dumps, rows)) + "]")


if __name__ == "__main__":
    main()
