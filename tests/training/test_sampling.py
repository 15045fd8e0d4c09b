"""Buckets, repeats, flips, dropped captions and rates: functions of (seed, step, sample index)."""

from collections import Counter

import pytest
import torch

from rcv.data.buckets import Bucket
from rcv.training import ClipFolder, FinetuneConfig, finetune
from rcv.training.inputs import Inputs
from rcv.training.setup import load_base
from tests.training.clip_files import write_clip

BUCKETS = [Bucket(3, 32, 32), Bucket(4, 32, 48), Bucket(6, 32, 32)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Four clips for 6x32x32, two for 3x32x32, three wide ones."""
    folder = tmp_path_factory.mktemp("mixed")
    for number in range(9):
        frames, size = [(8, (32, 32))] * 4 + [(4, (32, 32))] * 2 + [(5, (32, 48))] * 3, number
        frames, size = frames[number]
        write_clip(
            folder,
            f"{number}.mkv",
            frames=frames,
            size=size,
            seed=number,
            caption=f"clip {number}",
            lossless=True,
        )
    return folder


def drawn(clips, steps, samples_per_step, seed=0):
    return [
        [clips.sample(seed, step, index, samples_per_step) for index in range(samples_per_step)]
        for step in range(steps)
    ]


def test_all_samples_of_a_step_are_of_one_bucket_and_all_clips_come_equally_often(mixed):
    clips = ClipFolder(mixed, 1, (32, 32), buckets=BUCKETS)
    assert Counter(str(clip.bucket) for clip in clips.clips) == {"6x32x32": 4, "3x32x32": 2, "4x32x48": 3}
    for samples_per_step in (1, 2, 3):
        steps = drawn(clips, 3 * 9, samples_per_step)
        for number, samples in enumerate(steps):
            assert {clips.clips[sample.clip].bucket for sample in samples} == {clips.bucket(0, number)}
        times = Counter(sample.clip for samples in steps for sample in samples)
        assert set(times.values()) == {3 * samples_per_step}
    order = [clips.bucket(0, step) for step in range(27)]
    assert order != [clips.bucket(1, step) for step in range(27)]
    assert order[:9] != order[9:18]


def test_a_sample_does_not_depend_on_what_was_drawn_before(mixed):
    one, two = (ClipFolder(mixed, 1, (32, 32), buckets=BUCKETS, flip=0.5) for _ in range(2))
    forward = drawn(one, 20, 2)
    assert [[two.sample(0, step, index, 2) for index in (1, 0)] for step in reversed(range(20))] == [
        samples[::-1] for samples in reversed(forward)
    ]


def test_repeats_draw_a_clip_more_often(mixed, tmp_path):
    rows = [
        f'{{"video": "{mixed}/{number}.mkv", "caption": "x", "repeats": {number + 1}}}' for number in range(3)
    ]
    (tmp_path / "clips.jsonl").write_text("\n".join(rows))
    clips = ClipFolder(tmp_path / "clips.jsonl", 3, (32, 32))
    times = Counter(sample.clip for samples in drawn(clips, 12, 1) for sample in samples)
    assert times == {0: 2, 1: 4, 2: 6}


def test_flips_mirror_half_of_the_samples(mixed):
    plain, flipping = ClipFolder(mixed, 3, (32, 32)), ClipFolder(mixed, 3, (32, 32), flip=0.5)
    samples = [(plain.sample(0, step, 0, 1), flipping.sample(0, step, 0, 1)) for step in range(200)]
    mirrored = [sample for _, sample in samples if sample.mirrored]
    assert 70 < len(mirrored) < 130
    for straight, sample in samples[:20]:
        assert (straight.clip, straight.start, straight.top, straight.left) == (
            sample.clip, sample.start, sample.top, sample.left,
        )  # fmt: skip
        pixels = plain.pixels(straight)
        assert torch.equal(flipping.pixels(sample), pixels.flip(-1) if sample.mirrored else pixels)
    assert not any(plain.cut(0, torch.Generator().manual_seed(n)).mirrored for n in range(20))


def test_a_rate_takes_the_frames_shown_then(mixed):
    """Clips of 8 frames a second at 4: every other frame."""
    slow, strided = ClipFolder(mixed, 2, (32, 32), fps=4), ClipFolder(mixed, 2, (32, 32), stride=2)
    assert [clip.frames for clip in slow.clips] == [4] * 4 + [2] * 5
    for step in range(8):
        sample = slow.sample(0, step, 0, 1)
        first, second = slow.frame_indices(sample)
        assert (first % 2, second) == (0, first + 2)
    assert len(strided) == 9


@pytest.fixture(scope="module")
def pipeline(base):
    return load_base(FinetuneConfig(base=base))


def test_dropped_captions_are_the_empty_caption_s_embedding(mixed, pipeline):
    config = FinetuneConfig(clips=mixed, frames=3, caption_drop=0.3, workers=0)
    device = torch.device("cpu")
    inputs = Inputs(pipeline, ClipFolder(mixed, 3, (32, 32)), config, 2, device)
    empty = pipeline.encode_prompt([""], device, guided=False)[0][0]
    unconditional = pipeline.encode_prompt([""], device, guided=True)[1][0]
    assert torch.equal(empty, unconditional)  # what guidance is measured from
    batches = [inputs.batch(step, range(2)) for step in range(60)]
    dropped = [bool(torch.equal(text, empty)) for batch in batches for text in batch.text]
    assert 20 < sum(dropped) < 54
    alone = inputs.batch(7, [1])
    assert torch.equal(alone.text[0], batches[7].text[1])
    assert not any(torch.equal(batch.text[0], empty) for batch in inputs.fixed_batches(9))


def test_a_run_of_several_buckets(mixed, base, tmp_path):
    settings = {
        "base": base, "clips": mixed, "buckets": "3x32x32,4x32x48,6x32x32", "steps": 5, "preset": "streaming",
        "window": 4, "flip": 0.5, "caption_drop": 0.2, "eval_draws": 2, "learning_rate": 1e-2,
    }  # fmt: skip
    at_once = finetune(FinetuneConfig(**settings, batch_size=2, output=tmp_path / "one"), show_progress=False)
    parts = FinetuneConfig(**settings, gradient_accumulation=2, output=tmp_path / "two")
    assert at_once.losses == pytest.approx(finetune(parts, show_progress=False).losses, rel=1e-4)
    assert at_once.eval_losses[5] < at_once.eval_losses[0]
    assert FinetuneConfig.read_yaml(tmp_path / "one" / "config.yaml").frames == 6


def test_buckets_that_the_base_cannot_take(mixed, base, tmp_path):
    config = FinetuneConfig(base=base, clips=mixed, buckets="3x32x32,3x30x32", output=tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"buckets: 30x32 pixels, expected multiples of 4.*the nearest is 32x32"
    ):
        finetune(config, show_progress=False)
