"""Folders of clips: what is found, how samples are cut, and every problem named before anything runs."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from rcv.training import ClipFolder, ClipsError
from tests.training.clip_files import moving_square, write_clip


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        write_clip(
            tmp_path / "clips", f"clip{number}.mp4", frames=10, seed=number, caption=f"square {number}"
        )
    return tmp_path / "clips"


def problems(folder, frames=8, size=(32, 32), **options):
    before = sorted(path for path in folder.rglob("*"))
    with pytest.raises(ClipsError) as error:
        ClipFolder(folder, frames, size, **options)
    assert sorted(path for path in folder.rglob("*")) == before
    return error.value.problems


def test_video_files_gifs_and_folders_of_frames_are_found(tmp_path):
    write_clip(tmp_path, "a.mp4", caption="one")
    write_clip(tmp_path, "b.gif", caption="two\n")
    write_clip(tmp_path, "frames", caption="three\n words  here")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "README.md").write_text("about")
    clips = ClipFolder(tmp_path, 8, (32, 32))
    assert [clip.name for clip in clips.clips] == ["a.mp4", "b.gif", "frames"]
    assert clips.captions == ["one", "two", "three words here"]
    assert [clip.frames for clip in clips.clips] == [8, 8, 8]
    for number in range(3):
        assert clips.pixels(clips.sample(0, number, 0, 1)).shape == (8, 3, 32, 32)


def test_pixels_are_those_of_the_file(tmp_path):
    video = moving_square(12, seed=3)
    write_clip(tmp_path, "a.mkv", frames=12, seed=3, lossless=True)
    clips = ClipFolder(tmp_path, 4, (32, 32), stride=2)
    sample = clips.sample(0, 5, 0, 1)
    expected = video[sample.start : sample.start + 7 : 2].astype(np.float32) / 127.5 - 1
    found = clips.pixels(sample).permute(0, 2, 3, 1).numpy()
    assert found.shape == (4, 32, 32, 3)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cached_and_decoded_samples_are_equal(folder):
    cached, decoded = ClipFolder(folder, 4, (16, 24)), ClipFolder(folder, 4, (16, 24), cache_bytes=0)
    for step in range(6):
        sample = cached.sample(1, step, 0, 1)
        assert sample == decoded.sample(1, step, 0, 1)
        assert torch.equal(cached.pixels(sample), decoded.pixels(sample))


@pytest.mark.parametrize(
    ("have", "want"), [((96, 192), (128, 128)), ((192, 96), (64, 64)), ((132, 188), (64, 160))]
)
def test_resizing_keeps_the_aspect(tmp_path, have, want):
    """A centred disc stays a disc: its width and height agree after resize and crop."""
    height, width = have
    y, x = np.mgrid[:height, :width]
    disc = (np.hypot(y - height / 2 + 0.5, x - width / 2 + 0.5) < 32)[..., None] * np.uint8([255, 255, 255])
    (tmp_path / "disc").mkdir()
    for number in range(3):
        Image.fromarray(disc).save(tmp_path / "disc" / f"{number}.png")
    (tmp_path / "disc.txt").write_text("a disc")
    clips = ClipFolder(tmp_path, 3, want, crop="center")
    inside = clips.pixels(clips.sample(0, 0, 0, 1))[0, 0] > 0
    scale = max(w / h for h, w in zip(have, want, strict=True))
    tall, wide = int(inside.any(1).sum()), int(inside.any(0).sum())
    assert inside.shape == want
    assert abs(tall - min(want[0], 64 * scale)) <= 2
    assert abs(wide - min(want[1], 64 * scale)) <= 2


def test_shrinking_averages_instead_of_skipping_pixels(tmp_path):
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    (tmp_path / "stripes").mkdir()
    Image.fromarray(stripes).save(tmp_path / "stripes" / "0.png")
    (tmp_path / "stripes.txt").write_text("stripes")
    clips = ClipFolder(tmp_path, 1, (16, 16))
    assert clips.pixels(clips.sample(0, 0, 0, 1)).abs().max() < 0.1


def test_samples_are_functions_of_seed_step_and_index(folder):
    one, two = (ClipFolder(folder, 4, (16, 24), crop="random") for _ in range(2))
    numbers = [(step, index) for step in range(30) for index in range(2)]
    expected = {where: one.sample(5, *where, 2) for where in numbers}
    for where in reversed(numbers):
        assert two.sample(5, *where, 2) == expected[where]
    assert any(one.sample(6, *where, 2) != expected[where] for where in numbers)
    assert {sample.start for sample in expected.values()} == set(range(7))
    assert len({sample.top for sample in expected.values()}) > 4
    assert {sample.left for sample in expected.values()} == {0}


def test_samples_cover_all_clips_in_every_epoch(folder):
    clips = ClipFolder(folder, 4, (16, 16))
    drawn = [clips.sample(0, step, index, 3).clip for step in range(10) for index in range(3)]
    assert all(sorted(drawn[i : i + 3]) == [0, 1, 2] for i in range(0, 30, 3))


def test_center_crop_takes_the_middle(tmp_path):
    write_clip(tmp_path, "a.mkv", size=(32, 48), lossless=True)
    clips = ClipFolder(tmp_path, 2, (32, 32), crop="center")
    assert {clips.sample(0, step, 0, 1).left for step in range(5)} == {8}


def test_digests_tell_content_and_captions_apart(folder):
    before = ClipFolder(folder, 4, (16, 16)).digests()
    assert len(set(before.values())) == 3
    (folder / "clip1.txt").write_text("another caption")
    write_clip(folder, "clip2.mp4", frames=10, seed=9, caption="square 2")
    after = ClipFolder(folder, 4, (16, 16)).digests()
    assert after["clip0.mp4"] == before["clip0.mp4"]
    assert after["clip1.mp4"] != before["clip1.mp4"]
    assert after["clip2.mp4"] != before["clip2.mp4"]


def test_all_problems_are_listed_at_once(folder):
    whole = (folder / "clip0.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.txt").write_text("cut off")
    (folder / "words.mp4").write_text("this is no video\n" * 50)
    (folder / "words.txt").write_text("text")
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "zero.txt").write_text("nothing")
    write_clip(folder, "short.mp4", frames=5)
    write_clip(folder, "uncaptioned.mp4", caption=None)
    write_clip(folder, "blank.mp4", caption=" \n")
    write_clip(folder, "latin.mp4")
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    write_clip(folder, "clip1.gif", caption="square 1")
    os.symlink(folder / "gone.mp4", folder / "link.mp4")
    (folder / "link.txt").write_text("a link")
    found = problems(folder)
    for name, what in {
        "cut.mp4": "cut off",
        "words.mp4": "not a video",
        "zero.mp4": "empty",
        "short.mp4": "5 frames, fewer than the 8",
        "uncaptioned.mp4": "uncaptioned.txt",
        "blank.txt": "caption is empty",
        "latin.txt": "not UTF-8",
        "clip1.gif and clip1.mp4": "same name",
        "link.mp4": "broken link",
    }.items():
        assert any(line.startswith(name) and what in line for line in found), (name, found)
    assert not any(line.startswith(("clip0", "clip2")) for line in found)
    assert len(found) == 9


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_a_truncated_clip_is_refused_wherever_it_ends(tmp_path, suffix, keep):
    path = write_clip(tmp_path, f"a{suffix}", frames=40, size=(64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert len(problems(tmp_path, frames=4)) == 1


def test_stride_counts_into_the_length(folder):
    assert len(ClipFolder(folder, 4, (16, 16), stride=3)) == 3
    assert all(
        "fewer than the 11 that a sample of 6 with stride 2 spans" in line
        for line in problems(folder, 6, stride=2)
    )


def test_frames_of_different_sizes_are_named(tmp_path):
    write_clip(tmp_path, "mixed", frames=6)
    Image.new("RGB", (20, 20)).save(tmp_path / "mixed" / "frame_00003.png")
    assert "frame 3 is (20, 20)" in problems(tmp_path, 4)[0]


def test_folders_that_hold_no_clip(tmp_path):
    assert "no such folder" in problems(tmp_path / "missing")[0]
    assert "holds nothing" in problems(tmp_path)[0]
    (tmp_path / "notes.txt").write_text("x")
    assert "only notes.txt" in problems(tmp_path)[0]
    assert "this is a file" in problems(tmp_path / "notes.txt")[0]


def test_an_unreadable_folder_is_named(folder, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(ClipsError, match="cannot be read \\(Permission denied\\)"):
        ClipFolder(folder, 8, (32, 32))
