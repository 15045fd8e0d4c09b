"""Read what a cubin says of its kernels: registers, shared memory, matrix instructions, launch bounds.

Instructions of compute capability 7.0 and later have 16 bytes, the opcode in the low 12 bits.
"""

import importlib.util
import struct
from collections import Counter
from pathlib import Path

HMMA_884, HMMA_1688 = 0x236, 0x23C
LOAD_LOCAL, STORE_LOCAL = 0x983, 0x387

# The build has no package rcv yet: its reader of ELF files is taken from where it lies.
_spec = importlib.util.spec_from_file_location("elf", Path(__file__).parent.parent / "kernels" / "cubin.py")
elf = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(elf)


def kernels_of(cubin):
    """Return {kernel: {...}} of a cubin.

    Parameters
    ----------
    cubin : bytes

    Returns
    -------
    dict
        Per kernel `registers`, `stack_bytes`, `hmma` (matrix instructions in its code), `local_accesses`, and, from the
        array `<kernel>_launch` of the source: `threads` of a block, `rows` that a block works on, `shared_bytes`.
    """
    sections = elf.sections_of(cubin)
    symbols = {symbol.name: symbol for symbol in elf.symbols_of(cubin, sections)}
    by_number = {section.index: section for section in sections.values()}
    kernels = {}
    for name, resources in elf.resources(cubin).items():
        code = sections[f".text.{name}"]
        opcodes = Counter(
            struct.unpack_from("<H", cubin, code.offset + i)[0] & 0xFFF for i in range(0, code.size, 16)
        )
        bounds = symbols[f"{name}_launch"]
        launch = struct.unpack_from("<3i", cubin, by_number[bounds.section].offset + bounds.value)
        kernels[name] = {
            **resources._asdict(),
            "hmma": opcodes[HMMA_884] + opcodes[HMMA_1688],
            "local_accesses": opcodes[LOAD_LOCAL] + opcodes[STORE_LOCAL],
            **dict(zip(("threads", "rows", "shared_bytes"), launch, strict=True)),
        }
    return kernels
