"""Presets: the table, names that are wrong, combinations that mean nothing."""

import dataclasses
import json

import pytest

from rcv.models import PRESETS, Preset, get_preset


def test_the_presets():
    assert list(PRESETS) == [
        "tune-a-video",
        "published",
        "paper",
        "recurrent",
        "streaming",
        "first-frame",
    ]
    assert {name: p.group_norm for name, p in PRESETS.items()} == {
        "tune-a-video": "joint",
        "published": "joint",
        "paper": "joint",
        "recurrent": "per_frame",
        "streaming": "per_frame",
        "first-frame": "per_frame",
    }
    paper = get_preset("paper")
    assert (paper.cell, paper.activation, paper.drive, paper.base, paper.logit_bias) == (
        "rnn", "tanh", "input", "none", -4.0,
    )  # fmt: skip
    recurrent = get_preset("recurrent")
    assert (recurrent.attends, recurrent.drive, recurrent.base) == (("first", "memory"), "input", "former")
    assert dataclasses.replace(recurrent, name="streaming", temporal_window=16) == get_preset("streaming")
    assert not get_preset("first-frame").temporal_attention


@pytest.mark.parametrize(
    ("given", "meant"), [("recurent", "recurrent"), ("tune_a_video", "tune-a-video"), ("papers", "paper")]
)
def test_unknown_name_suggests_the_nearest(given, meant):
    with pytest.raises(ValueError, match=f"unknown preset '{given}', did you mean '{meant}'"):
        get_preset(given)


def test_a_preset_survives_json():
    for preset in PRESETS.values():
        assert get_preset(json.loads(json.dumps(dataclasses.asdict(preset)))) == preset


def test_unknown_field_suggests_the_nearest():
    with pytest.raises(ValueError, match="unknown preset field 'actvation', did you mean 'activation'"):
        get_preset({"name": "mine", "actvation": "relu"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cell": "lstm"}, "cell is 'lstm', expected one of"),
        ({"cell": None}, "a cell needs 'memory' in attends"),
        ({"attends": ("first", "former"), "cell": "rnn"}, "a cell needs 'memory' in attends"),
        ({"cell": "published"}, "come only together"),
        ({"cell": "rnn", "base": "former", "logit_bias": -4.0}, "logit_bias needs a memory with base='none'"),
        ({"cell": "rnn", "group_norm": "all"}, "group_norm is 'all'"),
        ({"cell": "rnn", "drive": "both"}, "drive is 'both'"),
        (
            {"cell": "rnn", "temporal_window": 0},
            "temporal_window is 0, expected a number of frames, 1 or more",
        ),
        (
            {"cell": "rnn", "temporal_window": 4, "temporal_attention": False},
            "temporal_window needs temporal_attention",
        ),
    ],
)
def test_meaningless_combinations_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Preset(name="mine", **fields)


def test_trained_names_match_whole_path_components():
    preset = get_preset("recurrent")
    assert preset.trains("down_blocks.0.attentions.0.transformer_blocks.0.attn1.memory.w_ho.weight")
    assert preset.trains("a.attn1.to_q.weight")
    assert not preset.trains("a.attn1.to_k.weight")
    assert not preset.trains("a.norm_temp.weight")
    assert not get_preset("paper").trains("a.attn1.memory_update_layer.weight")


def test_a_name_may_change_fields():
    changed = get_preset("recurrent( cell=rglru,drive = feedback )")
    assert changed.name == "recurrent(cell=rglru, drive=feedback)" and get_preset(changed.name) == changed
    assert (changed.cell, changed.drive, changed.base) == ("rglru", "feedback", "former")
    biased = get_preset("recurrent(base=none, logit_bias=-4)")
    assert (biased.base, biased.logit_bias) == ("none", -4) and get_preset(biased.name) == biased
    unbiased = get_preset("paper(logit_bias=null)")
    assert unbiased.logit_bias is None and get_preset(unbiased.name) == unbiased
    assert get_preset("paper()") is PRESETS["paper"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("recurent(cell=rnn)", "did you mean 'recurrent'"),
        ("recurrent(sell=rnn)", "did you mean 'cell'"),
        ("recurrent(cell)", "expected FIELD=VALUE"),
        ("recurrent(cell=lstm)", "lstm"),
        ("recurrent(name=mine)", "unknown field"),
        ("recurrent(cell=rnn", "unknown preset"),
    ],
)
def test_changes_that_mean_nothing(name, said):
    with pytest.raises(ValueError, match=said):
        get_preset(name)
