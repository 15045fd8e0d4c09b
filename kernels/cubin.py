"""Registers and stack of compiled kernels, read from the ELF file that ptxas writes: no GPU, no other tool."""

import struct
from typing import NamedTuple

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL_BYTES = 24
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


class _Section(NamedTuple):
    offset: int
    size: int


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
    if cubin[:5] != b"\x7fELF\x02":
        raise ValueError(f"not a cubin: it starts with {cubin[:5]!r}, expected a 64-bit ELF header")
    sections = _sections(cubin)
    found = {name.removeprefix(".text."): {} for name in sections if name.startswith(".text.")}
    for attribute, symbol, value in _function_attributes(cubin, sections[".nv.info"]):
        name = _symbol_name(cubin, sections, symbol)
        if name in found:  # ptxas' own helpers have attributes and no section
            found[name][attribute] = value
    return {name: Resources(of[_REGISTER_COUNT], of.get(_FRAME_SIZE, 0)) for name, of in found.items()}


def _sections(elf):
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [_SECTION.unpack_from(elf, table + i * size) for i in range(count)]
    names = headers[names_index][4]
    return {_string(elf, names + name): _Section(*rest[3:5]) for name, *rest in headers}


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


def _symbol_name(elf, sections, index):
    (name,) = struct.unpack_from("<I", elf, sections[".symtab"].offset + _SYMBOL_BYTES * index)
    return _string(elf, sections[".strtab"].offset + name)


def _string(elf, start):
    return elf[start : elf.index(b"\0", start)].decode()
