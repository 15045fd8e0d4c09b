"""The committed table of what every kernel compiles to: its rows, the limits they must keep, a page that sums it up.

`python -m rcv.kernels.compiled TABLE` prints the page.
"""

import csv
import os
import sys
from dataclasses import astuple, dataclass, fields
from pathlib import Path

# Shared memory that one block can have, in KiB (CUDA C++ Programming Guide, compute capabilities).
SHARED_KIB = {70: 96, 75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
TENSOR_MEMORY_COLUMNS = 512


@dataclass(frozen=True)
class Row:
    """One compilation and its results.

    Attributes
    ----------
    kernel : str
        The function's name.
    operation : str
    triton : str
        Version that compiled it.
    capability : int
        90 for compute capability 9.0.
    dtype, shape : str
        Of the first of the cases that need this compilation.
    tile : str
        Constants and options of the launch.
    key : str
        Hash of all that decides the machine code.
    mma : dict of str to int
        Matrix instructions in the PTX by kind: "mma.sync", "wgmma", "tcgen05".
    dots, scalar_dots : int
        Products of 16-bit or TF32 operands in the kernel, and those of them without matrix instructions.
    registers : int
        A thread.
    shared_bytes, tensor_memory : int
        Shared memory and columns of tensor memory a block.
    spilled_bytes : int
        Stack a thread.
    """

    kernel: str
    operation: str
    triton: str
    capability: int
    dtype: str
    shape: str
    tile: str
    key: str
    mma: dict
    dots: int
    scalar_dots: int
    registers: int
    shared_bytes: int
    tensor_memory: int
    spilled_bytes: int

    @property
    def label(self):
        """The row in words."""
        return label(vars(self))

    def violations(self):
        """Return, as sentences, which limits this row does not keep: empty if it is fit to run."""
        found = []
        if self.dots and not self.mma:
            found.append(f"no matrix instructions for {self.dots} products")
        elif self.scalar_dots:
            found.append(f"{self.scalar_dots} products without matrix instructions")
        if self.spilled_bytes:
            found.append(f"{self.spilled_bytes} bytes spilled a thread")
        limit = SHARED_KIB[self.capability] * 1024
        if self.shared_bytes > limit:
            found.append(f"{self.shared_bytes} bytes of shared memory, a block can have {limit}")
        if self.tensor_memory > TENSOR_MEMORY_COLUMNS:
            found.append(
                f"{self.tensor_memory} columns of tensor memory, a block can have {TENSOR_MEMORY_COLUMNS}"
            )
        return [f"{self.label}: {reason}" for reason in found]


def read(path):
    """Return the Rows of a table; a file that does not exist has none."""
    path = Path(path)
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [_row(record) for record in csv.DictReader(file)]


def write(path, rows):
    """Write Rows in their order by kernel, version, capability and shape; an interrupted write leaves the old file."""
    path = Path(path)
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        for row in sorted(rows, key=_order):
            writer.writerow([_mma_text(row.mma) if isinstance(v, dict) else v for v in astuple(row)])
    os.replace(partial, path)


def page(rows):
    """Return the table summed up as Markdown: the worst of every kernel on every capability."""
    lines = [
        "# Compiled kernels",
        "",
        "What the Triton kernels compile to, at the tiles that they would run with, for Stable Diffusion's shapes:",
        "computed without a GPU by `make compile-kernels compile-oldest`, one row a compilation in",
        "`kernels/compiled.csv`. Each line below sums up the dtypes, variants and shapes of a kernel on one compute",
        "capability: all shapes of an operation's first variant in float16; by the newest Triton also bfloat16, exact",
        "float32, TF32 and the other variants (logit bias, text, causal, initial state) at telling shapes, and all",
        "variants of frame attention in exact float32 and TF32 at the widest heads.",
        "`make compile-all` checks all variants in all dtypes at all shapes. All numbers are *compiled only*.",
        "",
        "* matrix instructions: their kinds in the PTX. Products of exact float32 (`allow_tf32` unset) have none.",
        "* registers: the most that a thread takes, of 255.",
        "* shared: the most shared memory that a block takes, of what the chip gives one block.",
        "* spilled: the most bytes of registers that a thread keeps in memory. The tests demand 0.",
    ]
    for version in sorted({row.triton for row in rows}, key=_numbers):
        lines += [
            "",
            f"## Triton {version}",
            "",
            "| kernel | capability | compilations | matrix instructions | registers | shared | spilled |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        of_version = [row for row in rows if row.triton == version]
        for kernel, capability in sorted({(row.kernel, row.capability) for row in of_version}):
            group = [row for row in of_version if (row.kernel, row.capability) == (kernel, capability)]
            lines.append(_line(kernel, capability, group))
    return "\n".join(lines) + "\n"


def label(columns):
    """Return in words which compilation a row is of, from its columns as a dict."""
    return "{kernel} on {capability}, {dtype}, {shape} ({tile}), triton {triton}".format_map(columns)


def _line(kernel, capability, group):
    kinds = ", ".join(sorted({kind for row in group for kind in row.mma})) or "none"
    shared = f"{max(row.shared_bytes for row in group) / 1024:.1f} of {SHARED_KIB[capability]} KiB"
    registers, spilled = (max(getattr(row, name) for row in group) for name in ("registers", "spilled_bytes"))
    major, minor = divmod(capability, 10)
    cells = (f"`{kernel}`", f"{major}.{minor}", len(group), kinds, registers, shared, spilled)
    return f"| {' | '.join(map(str, cells))} |"


def _row(record):
    values = {field.name: field.type(record[field.name]) for field in fields(Row) if field.type is not dict}
    mma = dict(pair.split("=") for pair in record["mma"].split())
    return Row(**values, mma={kind: int(count) for kind, count in mma.items()})


def _mma_text(mma):
    return " ".join(f"{kind}={count}" for kind, count in sorted(mma.items()))


def _order(row):
    return row.kernel, _numbers(row.triton), row.capability, row.dtype, row.shape, row.tile, row.key


def _numbers(version):
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


if __name__ == "__main__":
    print(page(read(sys.argv[1])), end="")
