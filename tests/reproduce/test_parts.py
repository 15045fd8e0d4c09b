"""Prompts, arms, intervals, the program's digest and the cut memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rcv.models import VideoUNet, get_preset
from rcv.reproduce.arms import STUDIES, chosen_study
from rcv.reproduce.cells import Cell, study_cells
from rcv.reproduce.code import code_digest
from rcv.reproduce.columns import difference_table
from rcv.reproduce.config import ReproduceConfig
from rcv.reproduce.cut import cut_memory
from rcv.reproduce.findings import findings
from rcv.reproduce.intervals import mean_interval, paired_interval
from rcv.reproduce.peak import peak_memory
from rcv.reproduce.prompts import hidden_subject, prompt_scenes
from rcv.reproduce.table import DIFFERENCES, STILLNESS, Row, Table
from rcv.training.config import FinetuneConfig
from rcv.world import THEMES
from rcv.world.clips import clip_scenes
from tests.tiny import UNET_CONFIG


@pytest.mark.parametrize("theme", THEMES)
def test_prompts_are_new_in_the_way_that_their_group_says(theme):
    hidden = hidden_subject(theme, 3)
    clips = clip_scenes(theme, 8, 3, (hidden,))
    shown = {(scene.subject, scene.color, scene.background) for scene in clips}
    subjects, places = {scene.subject for scene in clips}, {scene.background for scene in clips}
    for group in ("seen", "unseen subject", "unseen place", "unseen both"):
        scenes = prompt_scenes(theme, 3, 3, group, 8, hidden)
        assert len({scene.caption for scene in scenes}) == 3
        assert not shown & {(scene.subject, scene.color, scene.background) for scene in scenes}
        assert all((scene.subject in subjects) == (group in ("seen", "unseen place")) for scene in scenes)
        assert all((scene.background in places) == (group in ("seen", "unseen subject")) for scene in scenes)


def test_every_arm_is_a_preset_with_settings_that_finetuning_knows():
    for study in STUDIES.values():
        names = [arm.name for arm in study.arms]
        assert len(set(names)) == len(names) and {name for pair in study.pairs for name in pair} <= set(names)
        for arm in study.arms:
            if arm.preset is not None:
                FinetuneConfig(preset=arm.preset, **arm.settings)
                assert arm.cut is None or get_preset(arm.preset).cell is not None
    pairs = STUDIES["long"].pairs
    assert ("streaming: 32 frames", "tune-a-video: 32 frames") in pairs and len(pairs) == 12
    longer = "recurrent, trained on 32 frames: 64 frames", "tune-a-video, trained on 32 frames: 64 frames"
    assert longer in pairs
    assert ("recurrent", "tune-a-video") in STUDIES["steps"].pairs
    choices, table = STUDIES["choices"], STUDIES["table1"]
    assert not {*choices.themes} & {*table.themes} and not {*choices.seeds} & {*table.seeds}


def test_arms_are_chosen_by_name():
    config = ReproduceConfig(arms=["published", "first-frame"], seeds=[4])
    study = chosen_study(config, "table1")
    assert [arm.name for arm in study.arms] == ["true clips", "published", "first-frame"]
    assert (study.pairs, study.seeds) == ((("published", "first-frame"),), (4,))
    with pytest.raises(ValueError, match="did you mean 'published'"):
        chosen_study(ReproduceConfig(arms=["publishd"]), "table1")


def test_an_arm_may_be_trained_on_more_frames_than_the_others():
    names = ["recurrent: 64 frames", "recurrent, trained on 32 frames: 64 frames"]
    config = ReproduceConfig(study="long", arms=names, seeds=[0], themes=["raining"], frames=12)
    study = chosen_study(config, "long")
    cells = {cell.arm.name: cell for cell in study_cells(config, study)}
    assert list(cells) == ["true clips: 64 frames", *names]
    assert [cells[name].training.frames for name in names] == [12, 32]
    # whether windows are needed is told by what was trained on
    assert [cells[name].config.frames for name in names] == [12, 32]
    assert (
        all(cell.frames == 64 for cell in cells.values()) and cells["true clips: 64 frames"].training is None
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"study": "table2"}, "did you mean 'table1'"),
        ({"themes": ["birds fling"]}, "birds flying"),
        ({"seeds": [-1]}, "expected 0 or more"),
        ({"clip_count": 10}, "less than or equal to 9"),
    ],
)
def test_settings_that_mean_nothing(settings, said):
    with pytest.raises(ValueError, match=said):
        ReproduceConfig(**settings)


def test_fingerprints_tell_results_apart_and_nothing_else(models, tmp_path):
    arms = {arm.name: arm for arm in STUDIES["table1"].arms}
    config = ReproduceConfig(**models)

    def cell(arm="recurrent", theme="raining", seed=0, **changes):
        return Cell(config.model_copy(update=changes), arms[arm], theme, seed)

    same = {cell().fingerprint, cell(output=tmp_path).fingerprint, cell(jobs=4).fingerprint}
    assert len(same) == 1
    others = [cell(seed=1), cell(theme="fireworks"), cell(steps=5), cell(sampling_steps=5), cell(frames=12)]
    others += [cell(arm="paper"), cell(prompts=2), cell(guidance_scale=1.0)]
    assert len(same | {other.fingerprint for other in others}) == 1 + len(others)
    raw, guided = (cell(arm=f"tune-a-video {how}, one shot") for how in ("raw", "guided"))
    assert raw.training == guided.training and raw.fingerprint != guided.fingerprint
    assert cell(sampling_steps=5).training.output == cell().training.output


def test_the_digest_of_code_follows_imports_but_not_comments(tmp_path, monkeypatch):
    def digest(**changes):
        files = {"a": '"""Says."""\nfrom rcv.digested import b\n', "b": "X = 1\n", "c": "Y = 1\n", **changes}
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setattr("rcv.reproduce.code._file", lambda name: _place(tmp_path, name))
        code_digest.cache_clear()
        return code_digest("rcv.digested.a")

    first = digest()
    assert digest(a='"""Says more."""\n\n# why\nfrom rcv.digested import b\n') == first
    assert digest(c="Y = 2\n") == first
    assert digest(b="X = 2\n") != first
    code_digest.cache_clear()


def _place(folder, name):
    file = folder / f"{name.rpartition('.')[2]}.py"
    return file if file.is_file() else None


def test_intervals_of_known_values():
    rng = np.random.default_rng(0)
    interval = mean_interval(dict(enumerate(rng.normal(2.0, 1.0, 400))))
    assert interval.low < 2.0 < interval.high and interval.high - interval.low == pytest.approx(
        4 / 20, rel=0.15
    )
    assert interval.sign == 1 and interval.cells == 400
    assert mean_interval({}).cells == 0 and np.isnan(mean_interval({1: float("nan")}).mean)
    own = {cell: 1.0 + cell for cell in range(8)}
    rival = {cell: 0.9 + cell - 0.1 * (cell % 2) for cell in range(1, 12)}
    paired = paired_interval(own, rival)
    assert paired.cells == 7 and paired.mean == pytest.approx(0.1 + 0.4 / 7)
    assert 0.1 <= paired.low < paired.mean < paired.high <= 0.2 + 1e-9
    few = paired_interval(own, {1: 0.0, 2: 0.0})
    assert (few.cells, few.mean, few.sign) == (2, 2.5, 0) and np.isnan(few.low)


@pytest.mark.parametrize(
    ("shift", "said"), [(0.2, "is better than"), (-0.2, "is worse than"), (0.0, "cannot be told")]
)
def test_findings_follow_the_intervals(shift, said):
    study = chosen_study(ReproduceConfig(), "memory")
    values = dict(enumerate(shift + 0.05 * np.array([-1, 1, -1, 1, -1, 1, 1, -1])))
    row = Row("recurrent", {}, True, 1.0, 1.0, 1.0, 1.0, 8, 12, 1, np.zeros(0))
    rows = (row, replace(row, arm="state reset each frame", cells=0, failed=0))
    differences = {("recurrent", "read-out zero"): {"truth": mean_interval(values)}}
    table = Table(study, rows, {**differences, ("recurrent", rows[1].arm): {"truth": mean_interval({})}}, {})
    sentences = findings(table)
    assert said in sentences[0] and "paired over 8 cells" in sentences[0]
    assert sentences[1] == "16 of 24 cells are not computed yet."
    assert sentences[2] == "Arms of which none is: state reset each frame."
    assert "recurrent (1)" in sentences[3]
    assert table.shown() == ([row], differences)


def test_differences_are_in_brackets_where_an_arm_does_not_count():
    study = chosen_study(ReproduceConfig(), "memory")
    moving = Row("recurrent", {}, True, 1.0, 1.0, 1.0, 1.0, 6, 6, 0, np.zeros(0))
    still = replace(moving, arm="read-out zero", counts=False)
    found = dict.fromkeys(DIFFERENCES, mean_interval(dict.fromkeys(range(6), 1.0)))
    for rows, bracketed in (((moving, still), True), ((moving, replace(still, counts=True)), False)):
        head, (row,) = difference_table(Table(study, rows, {("recurrent", "read-out zero"): found}, {}))
        assert head[1:] == [
            "motion truth",
            "CLIP-Score",
            "CLIP-Temp",
            "warping error x1e3",
            "course",
            "rhythm",
        ]
        assert [text[0] == "[" for text in row[1:]] == [
            bracketed and name in STILLNESS for name in DIFFERENCES
        ]


@pytest.fixture
def unet():
    torch.manual_seed(0)
    unet = VideoUNet(**UNET_CONFIG, preset="recurrent").eval()
    for name, weight in unet.named_parameters():
        if ".memory.w_ho." in name:
            torch.nn.init.normal_(weight, std=0.3)
    return unet


def outputs(unet):
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(1, 4, 4, 8, 8, generator=generator)
    text = torch.randn(1, 5, UNET_CONFIG["cross_attention_dim"], generator=generator)
    with torch.no_grad():
        return unet(sample, 500, text).sample


def test_a_cut_read_out_leaves_first_and_former_frame(unet):
    before = outputs(unet)
    cut_memory(unet, "readout")
    baseline = VideoUNet(**UNET_CONFIG, preset="tune-a-video(group_norm=per_frame)").eval()
    baseline.load_state_dict({k: v for k, v in unet.state_dict().items() if ".memory." not in k})
    torch.testing.assert_close(outputs(unet), outputs(baseline))
    assert (before - outputs(unet)).abs().max() > 1e-3


def test_a_reset_memory_knows_the_frame_before_alone(unet):
    memory = next(module for name, module in unet.named_modules() if name.endswith("attn1.memory"))
    u = torch.randn(2, 5, 3, memory.w_zh.in_features)
    whole, _ = memory(u)
    cut_memory(unet, "reset")
    cut, last = memory(u)
    torch.testing.assert_close(cut[:, 0], whole[:, 0])
    assert (cut[:, 1:] - whole[:, 1:]).abs().max() > 1e-3
    torch.testing.assert_close(cut[:, 3], memory(u[:, 3:4])[0][:, 0])
    torch.testing.assert_close(last, cut[:, -1])


def test_what_cannot_be_cut():
    unet = VideoUNet(**UNET_CONFIG, preset="first-frame")
    with pytest.raises(ValueError, match="has no memory"):
        cut_memory(unet, "readout")
    with pytest.raises(ValueError, match="needs drive 'input'"):
        cut_memory(VideoUNet(**UNET_CONFIG, preset="recurrent(drive=feedback)"), "reset")


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures the GPU's memory instead")
def test_the_peak_is_of_the_block_alone():
    for megabytes in (256, 64):
        with peak_memory() as peak:
            np.ones(megabytes * 125_000)
        if peak.bytes is None:
            pytest.skip("this system does not tell a process its peak")
        assert 0.9 * megabytes * 1e6 < peak.bytes < (megabytes + 40) * 1e6
