"""Hostile clips: each is named with what is wrong with it, the sound ones train, none ends the process."""

import json
import os
import shutil

import pytest
import torch

from rcv.training import ClipFolder, ClipsError, FinetuneConfig, finetune
from tests.data.hostile import write_broken, write_odd
from tests.tiny import make_tiny_sd


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    return folder, write_broken(folder)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    return folder, write_odd(folder)


def problems(source, **options):
    with pytest.raises(ClipsError) as error:
        ClipFolder(source, 4, (32, 32), **options)
    return error.value.problems


def test_every_broken_clip_is_named(broken):
    folder, expected = broken
    found = problems(folder)
    assert len(expected) >= 35
    for name, said in expected.items():
        lines = [line for line in found if line.startswith(f"{name}: ")]
        assert len(lines) == 1 and said in lines[0], (name, said, lines)
    assert len(found) == len(expected)
    assert set(problems(folder, skip_broken=True)) == set(found)


def test_odd_clips_are_sound(odd):
    folder, names = odd
    clips = ClipFolder(folder, 4, (32, 32), crop="random")
    assert [clip.name for clip in clips.clips] == names
    assert len(names) >= 18
    for number, clip in enumerate(clips.clips):
        assert clip.frames == 8, clip
        pixels = clips.pixels(clips.cut(number, torch.Generator().manual_seed(number)))
        assert pixels.shape == (4, 3, 32, 32)
        assert pixels.std() > 0.1, clip
    captions = {clip.name: clip.caption for clip in clips.clips}
    assert captions["marked.mkv"] == "a caption of two lines"
    assert {clip.name: clip.size for clip in clips.clips}["turned.mp4"] == (40, 32)


def test_the_sound_ones_train(broken, odd, tmp_path, caplog):
    folder = tmp_path / "both"
    shutil.copytree(odd[0], folder)
    for file in broken[0].iterdir():
        os.symlink(file, folder / file.name)
    base = make_tiny_sd(tmp_path / "base")
    settings = {"base": str(base), "clips": folder, "frames": 4, "size": 32, "steps": 2, "eval_draws": 1}
    with pytest.raises(ClipsError):
        finetune(FinetuneConfig(**settings, output=tmp_path / "refused"), show_progress=False)
    assert not (tmp_path / "refused").exists()
    config = FinetuneConfig(**settings, skip_broken=True, output=tmp_path / "run")
    result = finetune(config, show_progress=False)
    assert len(result.losses) == 2
    for name in broken[1]:
        assert name in caplog.text, name


def test_rows_of_a_table_are_named_beside_the_sound_ones(odd, tmp_path):
    folder, names = odd
    sound = {"video": str(folder / names[0]), "caption": "sound"}
    rows = {
        json.dumps(sound): None,
        json.dumps({"video": "gone.mp4", "caption": "x"}): "no such file",
        '{"video": "': "not JSON",
        json.dumps({**sound, "x": 1}): "the same as line 1",
        json.dumps({"clip": names[0], "caption": "x"}): "no clip: expected video",
        json.dumps({**sound, "start": 100}): "0 frames in the part asked for",
        json.dumps({**sound, "end": 0.3}): "frames in the part asked for, fewer than the 4",
    }
    table = tmp_path / "clips.jsonl"
    table.write_text("\n".join(rows))
    found = "\n".join(problems(table))
    assert all(said in found for said in rows.values() if said)
    assert ClipFolder(table, 4, (32, 32), skip_broken=True).captions == ["sound"]


def test_clips_that_may_not_be_read_are_named(odd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unreadable")
    sound = odd[0] / "gray.mkv"
    for name in ("file.mkv", "caption.mkv", "sound.mkv"):
        shutil.copy(sound, folder / name)
        (folder / name).with_suffix(".txt").write_text("a caption")
    shutil.copytree(odd[0] / "deep", folder / "frames")
    (folder / "frames.txt").write_text("frames")
    for name in ("file.mkv", "caption.txt", "frames"):
        (folder / name).chmod(0)
    is_root = os.geteuid() == 0
    opened = folder
    while is_root and opened != opened.parent and opened.owner() == "root" and not opened.stat().st_mode & 1:
        opened.chmod(0o755)
        opened = opened.parent
    try:
        if is_root:  # root may read everything
            os.seteuid(65534)
        found = problems(folder)
    finally:
        if is_root:
            os.seteuid(0)
        (folder / "frames").chmod(0o755)
    assert len(found) == 3
    for name in ("file.mkv: ", "caption.txt: ", "frames: "):
        assert any(line.startswith(name) and "Permission denied" in line for line in found), (name, found)
