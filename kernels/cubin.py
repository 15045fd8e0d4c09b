"""What the ELF file that ptxas writes says of its kernels: no GPU, no other tool.

csrc/cubin.py reads more of it, and loads this file by its path: it must import nothing but Python's own modules.
"""

import struct
from typing import NamedTuple

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
# Kinds of entries in .nv.info, CUDA's attributes per function, and the format whose payload has a size of its own.
_REGISTER_COUNT = 0x2F
_FRAME_SIZE = 0x11
_SIZED = 4


class Resources(NamedTuple):
    """What one thread of a kernel takes.

    Attributes
    ----------
    registers : int
    stack_bytes : int
        Local memory: Triton's kernels have no arrays of their own, so that all of it is spilled registers.
    """

    registers: int
    stack_bytes: int


class Section(NamedTuple):
    """A section: its number, and where in the file it is, in bytes."""

    index: int
    offset: int
    size: int


class Symbol(NamedTuple):
    """A named place: the number of its section, and the offset in it."""

    name: str
    section: int
    value: int


def resources(cubin):
    """Return the Resources of every kernel in a cubin, by name.

    Parameters
    ----------
    cubin : bytes
        64-bit ELF file of one GPU architecture.

    Raises
    ------
    ValueError
        If this is no such file.
    """
    sections = sections_of(cubin)
    names = [symbol.name for symbol in symbols_of(cubin, sections)]
    found = {name.removeprefix(".text."): {} for name in sections if name.startswith(".text.")}
    for attribute, symbol, value in _function_attributes(cubin, sections[".nv.info"]):
        if names[symbol] in found:  # ptxas' own helpers have attributes and no section
            found[names[symbol]][attribute] = value
    return {name: Resources(of[_REGISTER_COUNT], of.get(_FRAME_SIZE, 0)) for name, of in found.items()}


def sections_of(cubin):
    """Return {name: Section} of a cubin; errors as `resources`."""
    if cubin[:5] != b"\x7fELF\x02":
        raise ValueError(f"not a cubin: it starts with {cubin[:5]!r}, expected a 64-bit ELF header")
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [_SECTION.unpack_from(cubin, table + i * size) for i in range(count)]
    names = headers[names_index][4]
    return {_string(cubin, names + name): Section(i, *rest[3:5]) for i, (name, *rest) in enumerate(headers)}


def symbols_of(cubin, sections):
    """Return the Symbols of a cubin, in order: attributes count them."""
    table, strings = sections[".symtab"], sections[".strtab"].offset
    found = []
    for at in range(table.offset, table.offset + table.size, _SYMBOL.size):
        name, _, _, section, value, _ = _SYMBOL.unpack_from(cubin, at)
        found.append(Symbol(_string(cubin, strings + name), section, value))
    return found


def _function_attributes(elf, info):
    """Yield (attribute, symbol, value) for the attributes that are one number a function."""
    at, end = info.offset, info.offset + info.size
    while at + 4 <= end:
        form, attribute, size = struct.unpack_from("<BBH", elf, at)
        at += 4
        if form != _SIZED:  # the value is in place of the size
            continue
        if attribute in (_REGISTER_COUNT, _FRAME_SIZE):
            yield attribute, *struct.unpack_from("<II", elf, at)
        at += size


def _string(elf, start):
    return elf[start : elf.index(b"\0", start)].decode()
