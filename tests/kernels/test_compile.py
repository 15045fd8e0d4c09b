"""The offline compiler, on kernels whose compilation is known."""

import json
import re

import pytest

from tests.kernels import offline


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    out = offline.output(
        "-m", "tests.kernels.compile_toys", str(folder / "table.csv"), cache=folder / "cache"
    )
    return json.loads(out)


def _of(toys, case):
    """The case's results by capability."""
    return {fact["capability"]: fact for fact in toys["facts"] if fact["case"] == case}


def test_half_precision_products_become_each_chips_matrix_instructions(toys):
    kinds = {capability: list(fact["mma"]) for capability, fact in _of(toys, "half").items()}
    assert kinds == {80: ["mma.sync"], 90: ["wgmma"], 100: ["tcgen05"], 120: ["mma.sync"]}
    assert not any(fact["violations"] for fact in _of(toys, "half").values())


def test_matrix_instructions_are_counted(toys):
    # m16n8k16 and m16n8k8 over 4 warps; m64n64k16.
    assert _of(toys, "half")[80]["mma"]["mma.sync"] == 64 * 64 * 64 / (16 * 8 * 16) / 4
    assert _of(toys, "tf32")[80]["mma"]["mma.sync"] == 32 * 32 * 32 / (16 * 8 * 8) / 4
    assert _of(toys, "half")[90]["mma"]["wgmma"] == 64 / 16


def test_a_product_without_matrix_instructions_is_a_violation_unless_it_is_exact(toys):
    fact = _of(toys, "without tensor cores")[75]
    assert (fact["dots"], fact["scalar_dots"], fact["mma"]) == (1, 1, {})
    assert "no matrix instructions" in fact["violations"][0]
    fact = _of(toys, "exact")[80]
    assert (fact["dots"], fact["mma"], fact["violations"]) == (0, {}, [])


def test_excess_of_shared_memory_is_a_violation(toys):
    (violation,) = _of(toys, "too large")[86]["violations"]
    assert "131072 bytes of shared memory, a block can have 101376" in violation


def test_spills_are_a_violation(toys):
    fact = _of(toys, "spilling")[80]
    assert fact["spilled_bytes"] > 0
    assert f"{fact['spilled_bytes']} bytes spilled" in fact["violations"][0]


def test_registers_and_stack_are_what_nvidias_tool_reads(toys):
    assert any(fact["spilled_bytes"] for fact in toys["facts"])
    for fact in toys["facts"]:
        found = re.findall(r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", fact["by_tool"])
        assert {name: [int(r), int(stack) + int(local)] for name, r, stack, local in found} == fact[
            "resources"
        ]


def test_tensor_memory_is_reported(toys):
    assert _of(toys, "half")[100]["tensor_memory"] == 64


def test_elementwise_kernels_compile_for_volta_and_turing(toys):
    facts = _of(toys, "elementwise")
    assert set(facts) == {70, 75}
    assert not any(fact["violations"] for fact in facts.values())


def test_arguments_are_specialised_by_value(toys):
    fact = _of(toys, "elementwise")[70]
    assert fact["signature"] == {
        "x": "*fp32",
        "o": "*fp32",
        "factor": "fp32",
        "bias": "constexpr",
        "size": "i32",
        "step": "constexpr",
        "BLOCK": "constexpr",
    }
    assert fact["aligned"] == [[0], [1]]
    assert [4] in _of(toys, "divisible")[70]["aligned"]
    wide = _of(toys, "wide")[70]
    assert (wide["signature"]["size"], wide["signature"]["bias"], wide["signature"]["step"]) == (
        "i64",
        "*fp32",
        "i32",
    )


def test_specialisation_is_tritons(toys):
    assert all(fact["as_launched"] for fact in toys["facts"])


def test_equal_compilations_are_made_once(toys):
    assert _of(toys, "half")[80]["key"] == _of(toys, "half again")[80]["key"]
    rows = json.loads(toys["check"]["out"])
    assert len({row["key"] for row in rows}) == len(rows)
    assert len(rows) == len({fact["key"] for fact in toys["facts"] if fact["kernel"] == "product_kernel"})


def test_check_lists_every_violation_and_fails(toys):
    expected = {line for fact in toys["facts"] for line in fact["violations"]}
    assert toys["check"]["status"] == 1
    assert set(toys["check"]["err"].splitlines()) == expected


def test_an_error_names_the_kernel_and_its_cause_and_stops_nothing(toys):
    assert toys["broken"]["status"] == 1
    assert "broken_kernel on 80, float16" in toys["broken"]["err"]
    assert "missing is not defined" in toys["broken"]["err"]
    assert [row["capability"] for row in json.loads(toys["broken"]["out"])] == [70, 75]


def test_several_processes_find_the_same(toys):
    found = {row["capability"]: row for row in json.loads(toys["processes"]["out"])}
    assert found == {
        c: {name: fact[name] for name in found[70]} for c, fact in _of(toys, "elementwise").items()
    }


def test_keys_are_of_every_compilation_and_version(toys):
    rows = json.loads(toys["keys"]["out"])
    assert {row["triton"] for row in rows} == {"3.6.0", "3.9.0"}
    assert len({row["key"] for row in rows}) == len(rows) == 2 * len({fact["key"] for fact in toys["facts"]})


def test_update_compiles_what_is_missing_and_drops_what_is_stale(toys):
    updates = toys["updates"]
    new, again, repaired = updates["compiled"]
    assert len(new) == 4
    assert again == []
    assert sorted(line.split(": ", 1)[1] for line in repaired) == sorted(updates["lost and stale"])
    assert updates["after"] == updates["expected"]


def test_a_check_that_keeps_its_rows_compiles_what_is_lost_and_checks_all(toys):
    violations = toys["check"]["err"].splitlines()
    for run, compilations in zip(toys["keeps"], (len(json.loads(toys["check"]["out"])), 1), strict=True):
        progress = [line for line in run["err"].splitlines() if " of " in line.split(": ")[0]]
        assert len(progress) == compilations
        assert sorted(set(run["err"].splitlines()) - set(progress)) == sorted(violations)
        assert run["status"] == 1


def test_the_interpreter_is_refused(tmp_path):
    process = offline.run("-c", _UNDER_INTERPRETER, cache=tmp_path)
    assert process.returncode == 2
    assert "TRITON_INTERPRET is set" in process.stderr


_UNDER_INTERPRETER = """
import os
from rcv.kernels import compile
os.environ["TRITON_INTERPRET"] = "1"
compile.main([])
"""

_KERNEL = """
import triton
import triton.language as tl

FACTOR = tl.constexpr(2.0)

@triton.jit
def helper(x):
    return x * FACTOR

@triton.jit
def some_kernel(x, o, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(o + i, helper(tl.load(x + i)))
"""
_EDITS = {
    "nothing": ("x", "x"),
    "comment": ("    i = tl", "    # why\n\n    i = tl"),
    "line numbers": ("FACTOR = tl", "\n\nunrelated = 3\nFACTOR = tl"),
    "body": ("o + i", "o + 2 * i"),
    "function it calls": ("x * FACTOR", "x + FACTOR"),
    "constant it reads": ("(2.0)", "(3.0)"),
}
_PRINT_CODE = """
import importlib, json, pathlib, sys
from rcv.kernels.compilation import code_of
sys.path.insert(0, sys.argv[1])
names = sorted(path.stem for path in pathlib.Path(sys.argv[1]).glob("*.py"))
print(json.dumps({name: code_of(importlib.import_module(name).some_kernel) for name in names}))
"""


def test_a_key_follows_the_code_and_not_its_comments_or_place(tmp_path):
    for name, edit in _EDITS.items():
        source = _KERNEL.replace(*edit, 1)
        (tmp_path / f"{name.replace(' ', '_')}.py").write_text(source)
    code = json.loads(offline.output("-c", _PRINT_CODE, str(tmp_path), cache=tmp_path / "cache"))
    original = code.pop("nothing")
    unchanged = {name for name, of in code.items() if of == original}
    assert unchanged == {"comment", "line_numbers"}
    assert len(set(code.values())) == 4
