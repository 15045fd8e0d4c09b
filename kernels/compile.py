"""Compile every Triton kernel for every chip it runs on, without a GPU: ``python -m rcv.kernels.compile``.

The operations run on meta tensors at Stable Diffusion's shapes, their launches are recorded instead of made, and each
is compiled once as Triton would specialise it. The results are facts about machine code: matrix instructions (counted
in the PTX by kind: mma.sync, wgmma, tcgen05), registers and stack (from the cubin), shared memory.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import sys
from dataclasses import asdict, dataclass, replace

import triton

from rcv.kernels import compiled, shapes
from rcv.kernels.compilation import Compilation

# Whose rows the committed table holds, and of which shapes: the locked Triton in all dtypes and variants, the oldest
# supported at the operations' first variants in float16. `--shapes all --check` crosses all variants and dtypes.
VERSIONS = {"3.6.0": "core", "3.9.0": "sd"}
SAVE_EVERY = 20


@dataclass(frozen=True)
class Wanted:
    """A compilation, and the first of the cases that need it.

    Attributes
    ----------
    compilation : Compilation
    operation, dtype, shape : str
    """

    compilation: Compilation
    operation: str
    dtype: str
    shape: str

    def identity(self, version=triton.__version__):
        """Return the columns of the table that are known before compiling, for one version of Triton."""
        major, minor = self.compilation.capability
        return {
            "kernel": self.compilation.name,
            "operation": self.operation,
            "triton": version,
            "capability": 10 * major + minor,
            "dtype": self.dtype,
            "shape": self.shape,
            "tile": self.compilation.tile,
            "key": self.compilation.key(version),
        }

    def row(self):
        """Compile, and return the table's Row."""
        return compiled.Row(**self.identity(), **self.compilation.results())


def wanted(cases, capabilities=None, kernel=""):
    """Return what the cases need, each compilation once, as a list of Wanted in the order of the cases.

    Parameters
    ----------
    cases : iterable of rcv.kernels.shapes.Case
    capabilities : collection of int, optional
        90 for compute capability 9.0; all that an operation runs on by default.
    kernel : str
        Part of the names of the kernels that are meant.
    """
    found = {}
    for case in cases:
        for capability in case.capabilities:
            if capabilities and 10 * capability[0] + capability[1] not in capabilities:
                continue
            for launch in case.launches(capability):
                if kernel not in launch.kernel.__name__:
                    continue
                compilation = Compilation.of(launch, capability)
                found.setdefault(compilation, Wanted(compilation, case.operation, case.dtype, case.shape))
    return list(found.values())


def rows(needed, jobs=1):
    """Yield (Wanted, Row), or (Wanted, the exception) where compiling fails, as they come.

    Parameters
    ----------
    needed : list of Wanted
    jobs : int
        Processes.
    """
    if jobs == 1:
        for item in needed:
            yield item, _row_or_error(item)
        return
    # Not forked: the threads of PyTorch and LLVM would not be there.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
        running = {pool.submit(_row_or_error, item): item for item in needed}
        for done in concurrent.futures.as_completed(running):
            yield running[done], done.result()


def _row_or_error(item):
    try:
        return item.row()
    except Exception as error:
        # As text: Triton's errors hold syntax trees, which no other process can read. A call's error wraps its cause.
        reasons = [str(error)]
        while error := error.__cause__:
            reasons.append(f"{type(error).__name__}: {error}")
        return RuntimeError("\n".join([f"{compiled.label(item.identity())} does not compile:", *reasons]))


def current_rows(path):
    """Return the rows of a committed table that the code still needs, those of other versions of Triton too."""
    current = complete()
    kept = [row for row in compiled.read(path) if (row.triton, row.key) in current]
    # The first case that needs a compilation may have become another.
    return [replace(row, **current[row.triton, row.key].identity(row.triton)) for row in kept]


def fill(path, table, selected, jobs):
    """Compile what a table of rows lacks of `selected`, and write it; an interrupted run keeps what it has compiled.

    Parameters
    ----------
    path : str or Path
    table : list of compiled.Row
        What is there; appended to.
    selected : list of Wanted
    jobs : int

    Returns
    -------
    list of str
        The errors of what could not be compiled.
    """
    present = {row.key for row in table if row.triton == triton.__version__}
    missing = [item for item in selected if item.compilation.key() not in present]
    compiled.write(path, table)
    errors = []
    for count, (item, result) in enumerate(rows(missing, jobs), 1):
        if isinstance(result, compiled.Row):
            table.append(result)
        else:
            errors.append(str(result))
        print(f"{count} of {len(missing)}: {compiled.label(item.identity())}", file=sys.stderr)
        if count % SAVE_EVERY == 0 or count == len(missing):
            compiled.write(path, table)
    return errors


def complete():
    """Return what a complete table has, as a dict of Wanted by (version of Triton, key)."""
    of_selection = {selection: wanted(shapes.cases(selection)) for selection in set(VERSIONS.values())}
    return {
        (version, item.compilation.key(version)): item
        for version, selection in VERSIONS.items()
        for item in of_selection[selection]
    }


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("TRITON_INTERPRET is set: kernels are interpreted, not compiled; unset it")
    if options.update and triton.__version__ not in VERSIONS:
        parser.error(f"this is triton {triton.__version__}; the table is of {' and '.join(VERSIONS)}")
    if options.update and options.keep:
        parser.error("--update has a table of its own: leave --keep out")
    if options.update and options.shapes:
        parser.error("--update decides itself which shapes the table has: leave --shapes out")
    if options.keys:
        print(json.dumps([item.identity(version) for (version, _), item in complete().items()]))
        return 0
    selection = VERSIONS[triton.__version__] if options.update else options.shapes or "sd"
    selected = wanted(shapes.cases(selection), options.capability, options.kernel)
    if table := options.update or options.keep:
        there = current_rows(table) if options.update else compiled.read(table)
        errors = fill(table, there, selected, options.jobs)
        keys = {item.compilation.key() for item in selected}
        results = [row for row in compiled.read(table) if row.key in keys]
    else:
        found = [result for _, result in rows(selected, options.jobs)]
        results = [result for result in found if isinstance(result, compiled.Row)]
        errors = [str(result) for result in found if not isinstance(result, compiled.Row)]
    if options.json:
        print(json.dumps([asdict(row) for row in results], indent=1))
    violations = [line for row in results for line in row.violations()] if options.check else []
    for line in (*errors, *violations):
        print(line, file=sys.stderr)
    return 1 if errors or violations else 0


def _parser():
    parser = argparse.ArgumentParser(prog="python -m rcv.kernels.compile", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the results as a JSON list")
    parser.add_argument(
        "--keys", action="store_true", help="print what the table should have, with keys; compile nothing"
    )
    parser.add_argument(
        "--check", action="store_true", help="list spills, excess of shared memory, products without mma"
    )
    parser.add_argument("--update", metavar="TABLE", help="bring the committed table up to date")
    parser.add_argument(
        "--keep",
        metavar="TABLE",
        help="take what this table holds, and write what is compiled to it: an interrupted run goes on",
    )
    parser.add_argument(
        "--capability", type=int, action="append", choices=compiled.SHARED_KIB, help="90 for 9.0; repeatable"
    )
    parser.add_argument("--kernel", default="", help="part of the kernels' names")
    parser.add_argument("--shapes", choices=shapes.SELECTIONS, help="sd by default")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
