"""Latents and embeddings kept on disk: equal bit for bit, told apart by what they depend on, never the end of a run."""

import errno
import os
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from rcv.data.cache import Cache
from rcv.training import ClipFolder, FinetuneConfig, finetune
from rcv.training import inputs as module
from rcv.training.inputs import Inputs
from rcv.training.setup import base_fingerprint, base_path, load_base, open_clips, resolved
from tests.tiny import make_tiny_sd
from tests.training.clip_files import write_clip

VIDEOS = os.environ.get("RCV_TEST_VIDEOS")
FOLDERS = sorted(path for path in Path(VIDEOS).iterdir() if path.is_dir()) if VIDEOS else []


@pytest.fixture
def wide(tmp_path):
    for seed in range(2):
        write_clip(
            tmp_path / "wide",
            f"{seed}.mkv",
            frames=5,
            size=(32, 48),
            seed=seed,
            caption=f"{seed}",
            lossless=True,
        )
    return tmp_path / "wide"


@pytest.fixture(scope="module")
def pipeline(base):
    return load_base(FinetuneConfig(base=base))


@pytest.fixture
def make(pipeline, wide, tmp_path, monkeypatch):
    """Function of settings: Inputs with a cache, and the list of what they computed: "frame" and "text"."""
    computed = []
    encode_video, encode_prompt = module.encode_video, pipeline.encode_prompt

    def encoded(*arguments, **options):
        computed.append("frame")
        return encode_video(*arguments, **options)

    def embedded(*arguments, **options):
        computed.append("text")
        return encode_prompt(*arguments, **options)

    monkeypatch.setattr(module, "encode_video", encoded)
    monkeypatch.setattr(pipeline, "encode_prompt", embedded)

    def make(model="model", size=(32, 32), cache=tmp_path / "cache", **settings):
        computed.clear()
        config = FinetuneConfig(clips=wide, frames=3, workers=0, **settings)
        clips = ClipFolder(wide, 3, size, crop=config.crop, flip=config.flip, cache=Cache(cache))
        return Inputs(pipeline, clips, config, 2, torch.device("cpu"), model=model), computed

    return make


def batches(inputs, steps=6):
    return [inputs.batch(step, range(2)) for step in range(steps)]


def equal(one, other):
    return all(
        torch.equal(a, b)
        for mine, theirs in zip(one, other, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )


def test_a_second_run_computes_nothing_and_is_equal_bit_for_bit(make):
    without, _ = make(cache=None)
    expected = batches(without)
    cold, computed = make()
    assert equal(batches(cold), expected)
    assert computed.count("frame") > 5 and computed.count("text") == 2
    warm, computed = make()
    assert equal(batches(warm), expected)
    assert computed == []


@pytest.mark.parametrize(
    "change",
    [{"model": "another"}, {"size": (16, 16)}, {"size": (32, 48)}, {"crop": "random"}, {"flip": 1.0}],
    ids=str,
)  # fmt: skip
def test_what_latents_depend_on_tells_them_apart(make, change):
    cold, _ = make()
    batches(cold)
    without, _ = make(cache=None, **change)
    expected = batches(without)
    changed, computed = make(**change)
    assert equal(batches(changed), expected)
    assert "frame" in computed


def test_a_changed_clip_and_caption_are_noticed(make, wide):
    cold, _ = make()
    before = batches(cold)
    write_clip(wide, "1.mkv", frames=5, size=(32, 48), seed=9, caption="another", lossless=True)
    without, _ = make(cache=None)
    expected = batches(without)
    changed, computed = make()
    assert equal(batches(changed), expected) and not equal(before, expected)
    assert computed.count("text") == 1 and computed.count("frame") > 0
    for number, batch in enumerate(before):
        for index in range(2):
            unchanged = changed.clips.sample(0, number, index, 2).clip == 0
            assert torch.equal(batch.latents[index], expected[number].latents[index]) == unchanged


def test_precision_tells_latents_apart(make, pipeline):
    cold, _ = make()
    single = batches(cold)
    vae = pipeline.vae
    try:
        torch.nn.Module.to(vae, torch.bfloat16)
        half, computed = make()
        assert not equal(batches(half), single) and "frame" in computed
    finally:
        torch.nn.Module.to(vae, torch.float32)


def test_a_retrained_base_has_another_fingerprint(tmp_path):
    first, second = (base_fingerprint(make_tiny_sd(tmp_path / str(seed), seed=seed)) for seed in range(2))
    assert first != second


def test_damaged_entries_are_made_again(make, tmp_path, caplog):
    cold, _ = make()
    expected = batches(cold)
    entries = sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    for number, path in enumerate(entries):
        content = path.read_bytes()
        path.write_bytes([b"", content[: len(content) // 2], content[:-1] + b"\xff\xfe", content][number % 4])
    again, computed = make()
    assert equal(batches(again), expected)
    assert "damaged" in caplog.text and computed
    last, computed = make()
    assert equal(batches(last), expected) and computed == []


def test_a_full_disk_ends_the_cache_and_not_the_run(quick, tmp_path, monkeypatch, caplog):
    quick["steps"] = 2
    expected = finetune(FinetuneConfig(**quick, output=tmp_path / "without"), show_progress=False)
    writing = Path.write_bytes

    def refused(path, content):
        if "cache" in path.parts and len(list((tmp_path / "cache").rglob("*.part"))) and len(content) > 500:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return writing(path, content)

    monkeypatch.setattr(Path, "write_bytes", refused)
    config = FinetuneConfig(**quick, cache=str(tmp_path / "cache"), output=tmp_path / "run")
    assert finetune(config, show_progress=False).losses == expected.losses
    told = [record for record in caplog.records if "nothing more is kept" in record.getMessage()]
    assert len(told) == 1 and os.strerror(errno.ENOSPC) in told[0].getMessage()
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_runs_share_a_cache_by_default_where_rcv_cache_says(quick, tmp_path, monkeypatch):
    quick["steps"] = 2
    monkeypatch.setenv("RCV_CACHE", str(tmp_path / "shared"))
    first = finetune(FinetuneConfig(**quick, output=tmp_path / "one"), show_progress=False)
    assert any((tmp_path / "shared").rglob("*"))
    monkeypatch.setattr(module, "encode_video", None)
    again = finetune(FinetuneConfig(**quick, output=tmp_path / "two"), show_progress=False)
    assert again.losses == first.losses


@pytest.mark.slow
@pytest.mark.skipif(not VIDEOS, reason="RCV_TEST_VIDEOS names no folder")
@pytest.mark.parametrize("clips", FOLDERS, ids=lambda path: path.name)
def test_an_epoch_of_real_clips_is_three_times_faster_once_it_is_cached(tmp_path, clips):
    """From opening the clips to the last batch of an epoch, by the embedded model; then with nothing in memory.

    The second epoch of the same run draws other frames: what it saves is the decoding, and the latents that come again.
    """
    config = FinetuneConfig(clips=clips, cache=str(tmp_path), output=tmp_path / "run")
    pipeline = load_base(config)
    config = resolved(config, pipeline, torch.device("cpu"))
    model = base_fingerprint(base_path(config))

    def epoch(folder, inputs, number):
        made = []
        for step in range(number * len(folder), (number + 1) * len(folder)):
            made.append(inputs.batch(step, [0]))
            inputs.prefetch(step + 1, [0])
        return made

    def run(epochs):
        clock, made = [(time.perf_counter(), time.process_time())], []
        folder = open_clips(config)
        inputs = Inputs(pipeline, folder, config, 1, torch.device("cpu"), model=model)
        for number in range(epochs):
            made.append(epoch(folder, inputs, number))
            clock.append((time.perf_counter(), time.process_time()))
        inputs.close()
        return made[0], [(wall - w, cpu - c) for (w, c), (wall, cpu) in pairwise(clock)]

    (first, (cold, second)), (again, (warm,)) = run(2), run(1)
    for name, (wall, processor) in {"cold": cold, "second": second, "warm": warm}.items():
        print(f"{clips.name}, {name} epoch: {wall:.2f} s, {processor:.2f} s of processor time")
    assert equal(first, again)
    assert cold[0] > 3 * second[0] > 3 * warm[0]
