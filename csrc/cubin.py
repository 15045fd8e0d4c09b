"""Read what a cubin says of its kernels: registers, shared memory, matrix instructions, launch bounds.

A cubin is a 64-bit ELF file. Instructions of compute capability 7.0 and later have 16 bytes, the opcode in the low 12
bits. `EIATTR_REGCOUNT` and `EIATTR_FRAME_SIZE` are records of the section `.nv.info`.
"""

import struct
from collections import Counter

REGCOUNT, FRAME_SIZE = 0x2F, 0x11
HMMA_884, HMMA_1688 = 0x236, 0x23C
LOAD_LOCAL, STORE_LOCAL = 0x983, 0x387


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
    sections = _sections(cubin)
    symbols = _symbols(cubin, sections)
    places = {name: (section, value) for name, section, value in symbols}
    kernels = {name.removeprefix(".text."): {} for name in sections if name.startswith(".text.")}
    for name, found in kernels.items():
        offset, size = sections[f".text.{name}"][1:3]
        opcodes = Counter(struct.unpack_from("<H", cubin, offset + i)[0] & 0xFFF for i in range(0, size, 16))
        found["hmma"] = opcodes[HMMA_884] + opcodes[HMMA_1688]
        found["local_accesses"] = opcodes[LOAD_LOCAL] + opcodes[STORE_LOCAL]
        section, value = places[f"{name}_launch"]
        start = sections[section][1] + value
        found["threads"], found["rows"], found["shared_bytes"] = struct.unpack_from("<3i", cubin, start)
    _add_attributes(cubin, sections, [name for name, _, _ in symbols], kernels)
    return kernels


def _sections(cubin):
    """Return {name: (index, offset, size)}."""
    (start,) = struct.unpack_from("<Q", cubin, 0x28)
    width, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    raw = [struct.unpack_from("<IIQQQQIIQQ", cubin, start + i * width) for i in range(count)]
    return {_text(cubin, raw[names][4] + entry[0]): (i, entry[4], entry[5]) for i, entry in enumerate(raw)}


def _symbols(cubin, sections):
    """Return (name, section name, value) of every symbol, in order: attributes count them."""
    by_index = {index: name for name, (index, _, _) in sections.items()}
    _, offset, size = sections[".symtab"]
    strings = sections[".strtab"][1]
    symbols = []
    for i in range(0, size, 24):
        name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", cubin, offset + i)
        symbols.append((_text(cubin, strings + name), by_index.get(section), value))
    return symbols


def _add_attributes(cubin, sections, names, kernels):
    _, position, size = sections[".nv.info"]
    end = position + size
    while position + 4 <= end:
        form, attribute, payload = struct.unpack_from("<BBH", cubin, position)
        position += 4
        if form != 4:  # the payload is the size field itself
            continue
        if payload == 8 and attribute in (REGCOUNT, FRAME_SIZE):
            symbol, value = struct.unpack_from("<II", cubin, position)
            kind = "registers" if attribute == REGCOUNT else "stack_bytes"
            if names[symbol] in kernels:
                kernels[names[symbol]][kind] = value
        position += payload


def _text(cubin, offset):
    return cubin[offset : cubin.index(b"\0", offset)].decode()
