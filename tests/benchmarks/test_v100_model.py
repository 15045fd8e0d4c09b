"""The model of time on a V100: it reproduces what was published, and its page says what it says."""

import json

import pytest

from benchmarks import v100_model
from benchmarks.sass import Phase, instructions_of, loop_of, phases_of
from benchmarks.v100_time import EXCHANGE_LATENCY, LOAD_LATENCY, MATRIX_CYCLES, Kernel, bank_cycles, turn_of

PAGE = v100_model.ROOT / "docs" / "v100-model.md"


@pytest.fixture(scope="module")
def peers():
    return v100_model.peers()


@pytest.mark.parametrize("name", ["cuBLAS, m = 2048, PCIe", "1Cat, D = 256, 8192 queries"])
def test_published_figures_are_reproduced(peers, name):
    (figure,) = [f for f in v100_model.figures(peers) if f.name == name]
    assert abs(figure.ratio - 1) <= 0.15


def test_attention_at_40_channels_is_faster_than_padded_to_64(peers):
    assert min(c.ratio for c in v100_model.comparisons(peers)) >= v100_model.TARGET


def test_the_page_says_what_the_model_says(peers):
    page = PAGE.read_text()
    assert page.endswith("\n\n" + v100_model.tables(peers)), (
        "run python -m benchmarks.v100_model, replace the tables"
    )


def test_the_command_prints_json_labelled_computed(capsys):
    v100_model.main(["--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["label"] == "computed" and len(told["comparisons"]) == 4


# A turn of the forward kernel at 40 channels: 32 queries a warp by 64 keys. Of the sources' loops: products; exp2 and a
# conversion of every probability, and of the lane's two rows the correction; operands of A and of b; probabilities.
FORWARD = {
    "matrix": 2 * 32 * 64 * 40 / (8 * 8 * 4 * 4),
    "special": 64 + 64 + 2,
    "16": 64 // 8 * (40 // 8) + 64 // 8,
    "8": 2 * (64 // 8) * (40 // 8),
    "4": 32,
}
# Of dk and dv, 32 keys a warp by 32 queries: four products; exp2, two conversions; operands K, V, P and dS, and b of
# the products; log-sum-exp and delta, written by one warp of four and read in pairs.
KEY_GRADIENT = {
    "matrix": 4 * 32 * 32 * 40 / (8 * 8 * 4 * 4),
    "special": 32 + 2 * 32,
    "16": 2 * (32 // 8) * (40 // 8) + 2 * 40 // 8 + 2 * 32 // 8,
    "8": 2 * 2 * (32 // 8) * (40 // 8) + 2 * 32 // 4,
    "4": 2 * 16 + 2,
}


@pytest.mark.parametrize(("direction", "counts"), [("fwd", FORWARD), ("bwd_dkv", KEY_GRADIENT)])
def test_compiled_loops_do_what_the_sources_say(direction, counts):
    phases = v100_model.own_kernel(direction, 40).phases
    assert sum(p.matrix for p in phases) == counts["matrix"]
    assert sum(p.special for p in phases) == counts["special"]
    assert sum(p.shared_loads.get("16", 0) for p in phases) == counts["16"]
    assert sum(p.shared_loads.get("8", 0) for p in phases) == counts["8"]
    assert sum(p.shared_stores.get("4", 0) for p in phases) == counts["4"]


def test_phases_keep_every_instruction_of_the_turn():
    code = (v100_model.KERNELS / "attention.sm_70").read_bytes()
    executed = loop_of(instructions_of(code, "frame_attention_fwd_kernel_d64"))
    phases = phases_of(executed)
    assert sum(p.issued for p in phases) == len(executed)
    assert sum(p.barrier for p in phases) == 2
    assert any(p.awaits for p in phases)


def test_an_unknown_kernel_is_named():
    code = (v100_model.KERNELS / "attention.sm_70").read_bytes()
    with pytest.raises(ValueError, match="no kernel nothing"):
        instructions_of(code, "nothing")


def _kernel(*phases, warps=4, blocks=1):
    return Kernel("toy", phases, warps, blocks, 1.0)


def test_a_phase_takes_its_scarcest_resource():
    turn = turn_of(_kernel(Phase(issued=100, matrix=10), Phase(issued=100, matrix=20)))
    assert turn.alone == pytest.approx(100 + 20 * MATRIX_CYCLES)
    assert turn.bound == "matrix"


def test_blocks_overlap_where_they_need_different_things_and_share_what_they_both_need():
    complementary = turn_of(_kernel(Phase(issued=1, matrix=10), Phase(issued=84), blocks=2))
    assert complementary.cycles == pytest.approx(complementary.alone, rel=0.02)
    alike = turn_of(_kernel(Phase(issued=1, matrix=10), blocks=2))
    assert alike.cycles == pytest.approx(2 * alike.alone)


def test_barriers_and_loads_that_are_stored_at_once_are_waited_for():
    fetch = Phase(issued=100, fetched=4, barrier=True, fetches_at=0.5)
    assert turn_of(_kernel(fetch, Phase(issued=10))).alone == pytest.approx(110 + EXCHANGE_LATENCY)
    turn = turn_of(_kernel(fetch, Phase(issued=10, awaits=True)))
    assert turn.alone == pytest.approx(EXCHANGE_LATENCY + 50 + LOAD_LATENCY + 10, rel=0.01)


@pytest.mark.parametrize(
    ("stride", "width", "cycles"),
    [(0, 4, 1), (4, 4, 1), (8, 4, 2), (128, 4, 32), (16, 16, 4), (128, 16, 32), (144, 16, 4), (8, 8, 2)],
)
def test_bank_conflicts(stride, width, cycles):
    assert bank_cycles([stride * lane for lane in range(32)], width) == cycles


def test_conflicts_of_the_tiles():
    assert v100_model.operand_cycles() == 8
    assert v100_model.store_cycles() == 4
