"""The end-to-end benchmark on a tiny width: what it measures, what it refuses to measure, how it counts memory."""

import dataclasses
import json

import pytest
import torch

from benchmarks import published, steps, train_step
from benchmarks.programs import PROGRAMS, Program, Setting, chosen_programs
from benchmarks.steps import GateError, Spread, measure_step, paired_ratio

TINY = Setting(
    channels=(16, 32), layers=1, heads=2, text_width=16, text_length=7, frames=3, height=16, width=16
)


@pytest.fixture(scope="module")
def results():
    return measure_step(TINY, repeats=2)


def test_every_program_is_measured_and_agrees(results):
    assert sorted((r.preset, r.way) for r in results) == sorted(PROGRAMS)
    for r in results:
        assert len(r.train.samples) == len(r.denoise.samples) == 2
        assert 0 < r.train.lower <= r.train.median <= r.train.upper
        assert 0 <= r.output_error <= steps.LIMITS["output"]
        assert 0 <= r.gradient_error <= steps.LIMITS["gradients"]
        assert r.peak_live_bytes > r.resident_bytes > 0
        assert r.cuda_peak_bytes is None


def test_presets_without_a_published_program_are_held_to_the_reference(results):
    against = {r.preset: r.compared_with for r in results if r.way == "preset"}
    assert against["tune-a-video"] == against["published"] == "its published programs"
    assert against["recurrent"] == against["paper"] == against["first-frame"] == "the reference operations"


def test_materialised_softmax_costs_memory(results):
    """At 256 tokens the probabilities are most of what Tune-A-Video's program holds."""
    peak = {(r.preset, r.way): r.peak_live_bytes for r in results}
    for preset, slots in (("tune-a-video", 2), ("published", 3)):
        probabilities = TINY.frames * TINY.heads * 256 * slots * 256 * 4
        assert peak[preset, "baddbmm"] - peak[preset, "sdpa"] > probabilities
        assert peak[preset, "preset"] < peak[preset, "baddbmm"]


def test_checkpointing_lowers_the_peak(results):
    lean = measure_step(
        dataclasses.replace(TINY, checkpointing=True), chosen_programs(["tune-a-video"]), 1, denoise=False
    )
    peak = {(r.preset, r.way): r.peak_live_bytes for r in results}
    assert len(lean) == 3
    for r in lean:
        assert r.peak_live_bytes < peak[r.preset, r.way]
        assert r.denoise is None


def test_a_program_that_computes_something_else_is_not_timed(monkeypatch):
    def always_first(self, x):
        x = x.unflatten(0, (-1, self.frames.value))
        return torch.cat((x[:, :1].expand_as(x), x[:, :1].expand_as(x)), 2).flatten(0, 1)

    monkeypatch.setattr(published.SparseCausalAttention, "_first_and_former", always_first)
    monkeypatch.setattr(steps, "_seconds", lambda *a: pytest.fail("timed before it was checked"))
    with pytest.raises(GateError, match="do not agree"):
        measure_step(TINY, chosen_programs(["tune-a-video"]), repeats=1)


def test_steps_leave_the_weights_as_they_are():
    """All programs of a preset share weights and are measured on the same ones."""
    program = Program("published", "sdpa", TINY.unet("published"), TINY)
    before = {name: value.clone() for name, value in program.unet.state_dict().items()}
    program.train_step()
    program.denoise_step()
    assert all(torch.equal(value, before[name]) for name, value in program.unet.state_dict().items())
    assert all(p.grad is None for p in program.unet.parameters())
    assert all(program.optimizer.state[p]["step"] == 1 for p in program.trained.values())


def test_command_prints_tables_and_writes_json(tmp_path, capsys):
    output = tmp_path / "results" / "train_step.json"
    arguments = "--channels 16 32 --layers 1 --heads 2 --text-width 16 --frames 4 --latents 8 --repeats 2"
    growth = "--growth-frames 2 5 --growth-latents 4 6 --growth-programs published:sdpa recurrent"
    threads = torch.get_num_threads()
    try:
        train_step.main(
            [*arguments.split(), *growth.split(), "--growth-repeats", "1", "--clock", "cpu",
             "--programs", "published", "recurrent", "--output", str(output)]
        )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "| the paper's program, with SDPA |" in printed and "| preset `recurrent` |" in printed
    assert "| 5 x 4x4 |" in printed and "| 2 x 6x6 |" in printed
    record = json.loads(output.read_text())
    assert record["label"] == f"measured on {record['device']}"
    assert record["setting"]["channels"] == [16, 32]
    assert record["versions"]["torch"] == torch.__version__
    assert [len(s["train"]["samples"]) for s in record["steps"]] == [2] * 4
    assert [(g["setting"]["frames"], g["setting"]["height"]) for g in record["growth"]] == [
        (2, 4),
        (5, 4),
        (2, 4),
        (2, 6),
    ]


def test_unknown_program_is_refused():
    with pytest.raises(ValueError, match="unknown program 'lamp'"):
        chosen_programs(["lamp"])
    assert chosen_programs(["published:sdpa", "recurrent"]) == (
        ("published", "sdpa"),
        ("recurrent", "preset"),
    )


def test_ratio_is_the_median_of_the_rounds_ratios():
    """A slow spell that hits both programs of a round leaves it alone."""
    ratio = paired_ratio(Spread.of([3.0, 30.0, 3.3]), Spread.of([1.0, 10.0, 1.0]))
    assert ratio.median == pytest.approx(3.0)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0, (2.0,))
