"""Compile the toy kernels and print what was found as JSON: run in a process without the interpreter."""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from rcv.kernels import compile, compiled, cubin, shapes
from tests.kernels.toy_kernels import Broken, Product, Scaled

compile.VERSIONS = {"3.6.0": "core", "3.9.0": "sd"}  # a table of two, whatever the committed one holds
CASES = {
    "half": Product(((8, 0), (9, 0), (10, 0), (12, 0))),
    "half again": Product(((8, 0),)),
    "without tensor cores": Product(((7, 5),), 32, 32),
    "exact": Product(((8, 0),), 32, 32, "float32"),
    "tf32": Product(((8, 0),), 32, 32, "float32", "tf32"),
    "too large": Product(((8, 6),), 128, 128, "float32", "tf32"),
    "spilling": Product(((8, 0),), 128, 16, warps=1),
    "elementwise": Scaled(((7, 0), (7, 5))),
    "divisible": Scaled(((7, 0),), size=1024),
    "wide": Scaled(((7, 0),), size=1 << 40, step=3, bias=True),
}


def resources_by_tool(binary):
    """Return what Triton's copy of cuobjdump says of a cubin."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [tool, "-res-usage", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def is_as_launched(compilation, case):
    """Whether a compilation is specialised as Triton's launcher would specialise the case's only launch."""
    (launch,) = case.launches(compilation.capability)
    major, minor = compilation.capability
    backend = make_backend(GPUTarget("cuda", 10 * major + minor, 32))
    named = {**launch.constants, **launch.options}
    binder = create_function_from_signature(launch.kernel.signature, launch.kernel.params, backend)
    packed = launch.kernel._pack_args(backend, named, *binder(**launch.arguments, **named))
    _, signature, constants, attributes = packed
    aligned = tuple(position for position, names in attributes.items() if names)
    return (compilation.signature, compilation.constants, compilation.aligned) == (
        tuple(signature.items()),
        tuple(constants.items()),
        aligned,
    )


def facts():
    """Yield everything known about the compilations, case by case."""
    for name, case in CASES.items():
        for item, row in compile.rows(compile.wanted([case])):
            binary = item.compilation.compiled().asm["cubin"]
            yield {
                "case": name,
                **asdict(row),
                "violations": row.violations(),
                "signature": dict(item.compilation.signature),
                "as_launched": is_as_launched(item.compilation, case),
                "aligned": item.compilation.aligned,
                "resources": cubin.resources(binary),
                "by_tool": resources_by_tool(binary),
            }


def command(*arguments, cases=None):
    """Return status, output and errors of the command, with these cases (all by default) as the operations'."""
    shapes.cases = lambda selection: cases or CASES.values()
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = compile.main(arguments)
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


def updates(table):
    """Return what three runs of `--update` printed, and the table before and after the third.

    Before the third, one row is lost and one is of other code; so is one of the two of another version of Triton.
    """
    arguments = ("--update", str(table), "--kernel", "scaled")
    runs = [command(*arguments), command(*arguments)]
    lost, stale, *rows = whole = compiled.read(table)
    theirs = compile.wanted([CASES["wide"]])[0].identity("3.6.0")
    kept = replace(rows[0], **theirs)
    other_code = [replace(stale, key="0" * 16), replace(kept, key="1" * 16)]
    compiled.write(table, [*rows, kept, *other_code])
    runs.append(command(*arguments))
    return {
        "compiled": [run["err"].splitlines() for run in runs],
        "lost and stale": [lost.label, stale.label],
        "expected": sorted(row.label for row in (*whole, kept)),
        "after": sorted(row.label for row in compiled.read(table)),
    }


def keeps(table):
    """Return what two runs of `--check --keep` printed, the second after one row was lost."""
    arguments = ("--check", "--keep", str(table), "--kernel", "product")
    first = command(*arguments)
    compiled.write(table, compiled.read(table)[1:])
    return [first, command(*arguments)]


if __name__ == "__main__":
    found = list(facts())
    print(
        json.dumps(
            {
                "facts": found,
                "check": command("--json", "--check", "--kernel", "product"),
                "keys": command("--keys"),
                "broken": command("--json", cases=[Broken(), CASES["elementwise"]]),
                "processes": command("--json", "--jobs", "2", cases=[CASES["elementwise"]]),
                "updates": updates(Path(sys.argv[1])),
                "keeps": keeps(Path(sys.argv[1]).with_name("kept.csv")),
            }
        )
    )
