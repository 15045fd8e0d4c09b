"""Plans of small models and of Stable Diffusion: what they count, what they advise, what they refuse."""

import dataclasses

import pytest

from benchmarks.published import published_way
from rcv.models.recompute import MODES
from rcv.planning import Setting, advice, budget, model_shape, most_frames, plan, trace_training
from rcv.planning.budget import CONTEXT, GIB, Budget
from rcv.planning.plans import KINDS
from rcv.planning.report import advised, write_plot
from tests.planning.small import SMALL

SD14 = Setting(model_shape("sd1.4"), frames=32, height=320, width=512)
V100 = budget("v100")


def planned(**changes):
    return plan("train", dataclasses.replace(SD14, **changes), V100)


@pytest.fixture(scope="module")
def lean():
    return planned(checkpointing="selective")


def test_32_frames_on_a_v100(lean):
    """With everything counted, the context and the allocator's gaps too; a T4 has 14.7 GiB."""
    assert lean.needed <= 10.8 * GIB
    assert lean.fits
    assert lean.budget.context == CONTEXT


def test_32_frames_with_full_checkpointing():
    assert planned(checkpointing="full").needed <= 6.8 * GIB


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"frames": 48, "checkpointing": "selective"}, 15.8),
        ({"frames": 128, "checkpointing": "full"}, 15.8),
        ({"frames": 256, "checkpointing": "offload"}, 15.8),
        ({"height": 512, "checkpointing": "full"}, 9.0),
    ],
    ids=str,
)
def test_longer_and_larger(changes, most):
    assert planned(**changes).needed <= most * GIB


@pytest.mark.slow
def test_against_the_published_way():
    """Per-frame loop, concatenated keys, fused attention in PyTorch: same model, same settings, same counter."""
    setting = dataclasses.replace(SD14, preset="published", capability=(7, 0))
    theirs = trace_training(setting, lambda unet: published_way(unet, "sdpa")).peak
    ours = trace_training(dataclasses.replace(setting, checkpointing="selective")).peak
    recurrent = trace_training(
        dataclasses.replace(setting, preset="recurrent", checkpointing="selective")
    ).peak
    assert recurrent <= 0.5 * theirs
    assert ours <= 0.5 * theirs


def test_kinds_add_up(lean):
    assert set(lean.at_peak) <= set(KINDS)
    assert sum(lean.at_peak.values()) == lean.peak
    trained = 111_563_520
    assert lean.at_peak["trained weights"] == 4 * trained
    assert lean.at_peak["optimizer"] == pytest.approx(8 * trained, rel=1e-4)
    assert lean.at_peak["frozen weights"] == pytest.approx(2 * 835e6, rel=0.01)
    assert max(sum(sizes.values()) for _, sizes in lean.timeline) == lean.peak
    assert list(dict.fromkeys(stage for stage, _ in lean.timeline)) == [
        "encode",
        "forward",
        "backward",
        "optimizer",
    ]
    assert lean.stage == "backward"
    assert lean.module.startswith("up_blocks.3.attentions")


def test_modes_trade_memory_for_time():
    needed = [
        plan("train", Setting(SMALL, height=64, width=64, checkpointing=mode), V100).needed for mode in MODES
    ]
    assert needed == sorted(needed, reverse=True)
    assert needed[0] > needed[-1]


@pytest.mark.parametrize(
    ("preset", "capability", "precision"),
    [
        ("tune-a-video", (7, 0), "fp16"),
        ("published", (7, 5), "fp16"),
        ("paper", (7, 0), "fp32"),
        ("paper", (8, 0), "bf16"),
        ("first-frame", (9, 0), "fp32"),
        ("recurrent", (9, 0), "fp16"),
        ("recurrent", None, "fp16"),
    ],
)
def test_every_preset_and_chip(preset, capability, precision):
    one = plan(
        "train", Setting(SMALL, preset, 3, 64, 40, precision=precision), Budget("x", 8 * GIB, capability)
    )
    assert one.fits
    assert one.resident < one.peak <= one.reserved
    assert one.peak <= one.needed - one.budget.context <= one.reserved + (8 << 20)


def test_generation():
    one = plan("generate", dataclasses.replace(SD14, frames=16), V100)
    two = plan("generate", dataclasses.replace(SD14, frames=16, batch=2), V100)
    assert one.fits
    assert one.resident < one.peak < two.peak
    assert one.at_peak["text encoder and VAE"] == 2 * (123_060_480 + 83_653_863)


def test_long_generation_takes_what_a_short_one_takes():
    short, long = (
        plan("generate", dataclasses.replace(SD14, preset="streaming", frames=frames, window=16), V100)
        for frames in (32, 256)
    )
    assert long.peak <= 1.1 * short.peak
    assert long.needed <= 1.1 * short.needed


@pytest.mark.parametrize("capability", [None, (7, 0)], ids=str)
def test_windows_take_what_one_takes(capability):
    """And the state beside it."""
    setting = Setting(SMALL, preset="streaming", height=64, width=64, precision="fp32", window=8)
    limit = Budget("x", 8 * GIB, capability)
    eight, many = (plan("train", dataclasses.replace(setting, frames=n), limit) for n in (8, 64))
    one_pass = plan("train", dataclasses.replace(setting, frames=64, window=None), limit)
    assert many.peak < 1.3 * eight.peak
    assert many.peak < 0.7 * one_pass.peak


def test_advice_names_the_cheapest_first():
    setting = Setting(SMALL, frames=40, height=128, width=128)
    needed = {
        mode: plan("train", dataclasses.replace(setting, checkpointing=mode), V100).needed
        for mode in ("none", "selective", "full")
    }
    tight = Budget("tight", needed["selective"], (7, 0))
    refused = plan("train", setting, tight)
    fitting, leanest = advice(refused)
    assert not refused.fits
    assert [one.setting.checkpointing for one in fitting] == ["selective", "full", "offload"]
    assert leanest.setting.frames == 1
    assert "--gradient-checkpointing selective (about 7 % slower" in advised(refused, fitting, leanest)[0]


def test_advice_of_half_precision_and_a_smaller_batch():
    setting = Setting(SMALL, frames=40, height=128, width=128, precision="fp32", batch=3)
    room = plan("train", dataclasses.replace(setting, precision="fp16", batch=1), V100).needed
    refused = plan("train", setting, Budget("tight", room, (7, 0)))
    fitting, leanest = advice(refused)
    assert (fitting[0].setting.precision, fitting[0].setting.batch) == ("fp16", 1)
    assert advised(refused, fitting, leanest)[0].startswith(
        "This fits: --precision fp16 with --batch-size 1,"
    )


def test_advice_for_generation():
    setting = Setting(SMALL, preset="streaming", frames=64, height=128, width=128)
    room = plan("generate", dataclasses.replace(setting, decode_chunk=1, window=8), V100).needed
    refused = plan("generate", setting, Budget("tight", room, (7, 0)))
    fitting, leanest = advice(refused)
    assert "--decode-chunk-size 1 with --window" in advised(refused, fitting, leanest)[-1]


def test_advice_of_fewer_frames():
    setting = Setting(SMALL, frames=60, height=512, width=512, checkpointing="offload")
    room = plan("train", dataclasses.replace(setting, frames=20), V100).needed
    fitting, leanest = advice(plan("train", setting, Budget("small", room, (7, 0))))
    (one,) = fitting
    assert 20 <= one.setting.frames < 24
    assert "--frames" in advised(plan("train", setting, one.budget), fitting, leanest)[0]


def test_most_frames_is_the_most():
    setting = Setting(SMALL, height=128, width=128)
    room = plan("train", dataclasses.replace(setting, frames=33), V100).needed
    most = most_frames("train", setting, Budget("x", room, (7, 0)))
    assert most.fits and most.setting.frames >= 33
    more = dataclasses.replace(setting, frames=most.setting.frames + 1)
    assert not plan("train", more, most.budget).fits
    assert most_frames("train", setting, Budget("none", CONTEXT + 1, (7, 0))) is None


def test_impossible_budget_names_the_lower_bound():
    refused = plan("train", Setting(SMALL, height=64, width=64), Budget("tiny", CONTEXT + (1 << 20), (7, 0)))
    fitting, leanest = advice(refused)
    (said,) = advised(refused, fitting, leanest)
    assert fitting == []
    assert "Nothing fits: one frame needs" in said
    assert "text encoder and VAE" in said or "frozen weights" in said or "workspaces" in said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"precision": "fp61"}, "unknown precision 'fp61', did you mean 'fp16'"),
        ({"checkpointing": "ful"}, "unknown checkpointing 'ful', did you mean 'full'"),
        ({"frames": 5000}, "frames at once: 5000, at most 4096 are planned; set a window"),
        ({"window": 0}, "window is 0, expected 1 frame or more"),
        ({"preset": "recurent"}, "unknown preset 'recurent', did you mean 'recurrent'"),
    ],
)
def test_unknown_names(values, said):
    with pytest.raises(ValueError, match=said):
        Setting(SMALL, **values)


def test_sizes_are_multiples_of_the_vae_factor():
    with pytest.raises(ValueError, match="size: 60x64 pixels, expected multiples of 8"):
        plan("train", Setting(SMALL, height=60, width=64), V100)


@pytest.mark.parametrize(
    ("text", "total"), [("12GiB", 12 * GIB), ("8 gb", 8 * 10**9), ("4096MiB", 4 * GIB), ("V100", V100.total)]
)
def test_budgets(text, total):
    assert budget(text).total == total


@pytest.mark.parametrize("text", ["12", "twelve", "0.4GiB", "-3GiB", ""])
def test_budgets_that_are_none(text):
    with pytest.raises(ValueError, match="memory"):
        budget(text)


def test_plot(tmp_path, lean):
    path = write_plot(lean, tmp_path / "deep" / "memory.png")
    assert path.stat().st_size > 10_000
