"""The committed table of compiled kernels: current, complete, within the limits, and what the docs say."""

import ast
import dataclasses
import importlib.metadata
import json

import pytest

from rcv.kernels import compiled, shapes
from rcv.ops import registry
from tests.kernels import offline

TABLE = offline.ROOT / "kernels/compiled.csv"
PAGE = offline.ROOT / "docs/compiled-kernels.md"
REFRESH = (
    "run `make compile-kernels compile-oldest` and commit kernels/compiled.csv and docs/compiled-kernels.md"
)
SAMPLE = 4


@pytest.fixture(scope="module")
def rows():
    return compiled.read(TABLE)


@pytest.fixture(scope="module")
def current(rows, tmp_path_factory):
    """What the code needs: `identities` of all compilations, and the `sample` of the table's rows compiled again."""
    keys = [row.key for row in _sample(rows)]
    return json.loads(offline.output("-c", _COMPILE, *keys, cache=tmp_path_factory.mktemp("cache")))


def test_every_row_is_of_the_code_as_it_is(rows, current):
    needed = {(identity["triton"], identity["key"]): identity for identity in current["identities"]}
    stale = [row.label for row in rows if (row.triton, row.key) not in needed]
    assert not stale, f"{len(stale)} rows are of other code: {REFRESH}: {stale[:5]}"
    other = [row.label for row in rows if not needed[row.triton, row.key].items() <= vars(row).items()]
    assert not other, f"{len(other)} rows name another case than the first: {REFRESH}: {other[:5]}"


def test_no_row_is_missing_and_none_is_there_twice(rows, current):
    present = [(row.triton, row.key) for row in rows]
    needed = {(identity["triton"], identity["key"]): identity for identity in current["identities"]}
    missing = [compiled.label(needed[identifier]) for identifier in set(needed) - set(present)]
    assert not missing, f"{len(missing)} rows are missing: {REFRESH}: {missing[:5]}"
    assert len(set(present)) == len(present)


def test_every_compilation_keeps_the_limits(rows):
    assert not [line for row in rows for line in row.violations()]


def test_every_kernel_is_in_the_table_for_all_that_it_runs_on(rows):
    for name in _kernels():
        of_kernel = [row for row in rows if row.kernel == name]
        assert of_kernel, f"{name} is in no row: does a case in kernels/shapes.py launch it?"
        capabilities = {c for row in of_kernel for c in shapes.CAPABILITIES[row.operation]}
        assert {divmod(row.capability, 10) for row in of_kernel} == capabilities, name


def test_every_operation_that_triton_runs_is_compiled_from_its_lowest_capability_on():
    backend = registry.BACKENDS["triton"]
    # `attention` is frame_attention with another signature.
    for operation in set(backend.programs) - {"attention"}:
        assert min(shapes.CAPABILITIES[operation]) == backend.limits[operation].capability, operation


def test_scans_of_few_frames_stand_for_those_of_many(current):
    assert set(current["the same for all frame counts"].values()) == {True}


def test_a_sample_compiles_to_what_the_table_says(rows, current):
    sample = _sample(rows)
    if rows and not sample:
        pytest.skip(f"the table has no rows of triton {_VERSION}")
    assert current["sample"] == [dataclasses.asdict(row) for row in sample]


def test_the_page_is_the_tables():
    assert compiled.page(compiled.read(TABLE)) == PAGE.read_text(), REFRESH


def test_a_table_reads_as_it_was_written(tmp_path):
    rows = [_row(mma={"mma.sync": 4, "wgmma": 8}), _row(kernel="another_kernel", mma={})]
    compiled.write(tmp_path / "table.csv", rows)
    assert compiled.read(tmp_path / "table.csv") == [rows[1], rows[0]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mma": {}}, "no matrix instructions for 2 products"),
        ({"scalar_dots": 1}, "1 products without matrix instructions"),
        ({"spilled_bytes": 8}, "8 bytes spilled a thread"),
        ({"shared_bytes": 232449}, "232449 bytes of shared memory, a block can have 232448"),
        ({"tensor_memory": 513}, "513 columns of tensor memory, a block can have 512"),
    ],
)
def test_every_limit_is_kept_by_name(change, reason):
    assert _row().violations() == []
    (violation,) = _row(**change).violations()
    assert violation.endswith(reason)


def test_the_page_shows_the_worst_of_a_kernel_on_a_chip():
    page = compiled.page(
        [_row(), _row(registers=168, shared_bytes=2048, mma={"mma.sync": 1}), _row(triton="3.10.0")]
    )
    assert "| `some_kernel` | 9.0 | 2 | mma.sync, wgmma | 168 | 4.0 of 227 KiB | 0 |" in page
    assert page.index("Triton 3.6.0") < page.index("Triton 3.10.0")


def _row(**changes):
    values = {
        "kernel": "some_kernel",
        "operation": "gated_scan",
        "triton": "3.6.0",
        "capability": 90,
        "dtype": "float16",
        "shape": "F8, N64",
        "tile": "BLOCK=64 num_warps=4",
        "key": "0123456789abcdef",
        "mma": {"wgmma": 4},
        "dots": 2,
        "scalar_dots": 0,
        "registers": 64,
        "shared_bytes": 4096,
        "tensor_memory": 0,
        "spilled_bytes": 0,
    }
    return compiled.Row(**{**values, **changes})


def _kernels():
    """Names of the jitted functions in kernels/ that are launched: those that end in _kernel."""
    for path in sorted((offline.ROOT / "kernels").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel"):
                decorators = [
                    ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list
                ]
                if "triton.jit" in decorators:
                    yield node.name


def _sample(rows):
    """The first rows of the installed Triton in the order of their keys: any, but the same in every run."""
    return sorted((row for row in rows if row.triton == _VERSION), key=lambda row: row.key)[:SAMPLE]


_VERSION = importlib.metadata.version("triton")
_COMPILE = """
import dataclasses, json, sys
import triton
from rcv.kernels import compile, shapes
needed = compile.complete()
sample = [needed[triton.__version__, key] for key in sys.argv[1:] if (triton.__version__, key) in needed]
identities = [item.identity(version) for (version, _), item in needed.items()]
def of_frames(op, frames):
    case = shapes.Case(op, shapes.VARIANTS[op][0], "float16", 1, frames, 64, 8, 40)
    return {item.compilation for item in compile.wanted([case], [80])}
scans = [op for op in shapes.CAPABILITIES if op not in shapes.FRAMES]
print(json.dumps({
    "identities": identities,
    "sample": [dataclasses.asdict(item.row()) for item in sample],
    "the same for all frame counts": {op: of_frames(op, 8) == of_frames(op, 128) for op in scans},
}))
"""
