"""Folders of rendered clips."""

import errno

import numpy as np
import pytest

from rcv.video import read_video
from rcv.world import SUBJECTS, clips, parse_caption, render_clip, write_clips
from rcv.world.clips import clip_scenes


def test_clips_come_back_as_rendered(tmp_path):
    paths = write_clips(tmp_path / "clips", "birds flying", 3, seed=2, frames=5, size=(32, 48))
    scenes = clip_scenes("birds flying", 3, seed=2)
    assert [path.with_suffix(".txt").read_text().strip() for path in paths] == [
        scene.caption for scene in scenes
    ]
    for path, scene in zip(paths, scenes, strict=True):
        video = read_video(path)
        assert np.array_equal(video.frames, render_clip(scene, 5, (32, 48)).frames)
        assert video.fps == pytest.approx(8)


def test_the_rate_is_that_of_the_motion_and_of_the_file(tmp_path):
    (path,) = write_clips(tmp_path, "horse running", 1, frames=4, fps=12)
    video = read_video(path)
    assert video.fps == pytest.approx(12)
    assert np.array_equal(video.frames, render_clip(clip_scenes("horse running", 1)[0], 4, fps=12).frames)


def test_the_same_arguments_write_the_same_clips_and_leave_other_files(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    first = write_clips(tmp_path, "raining", 3, seed=4, frames=2, size=32)
    before = [read_video(path).frames for path in first]
    again = write_clips(tmp_path, "raining", 3, seed=4, frames=2, size=32)
    assert again == first
    assert all(np.array_equal(read_video(path).frames, was) for path, was in zip(again, before, strict=True))
    wanted = {path.with_suffix(suffix).name for path in first for suffix in (".mkv", ".txt")}
    assert {file.name for file in tmp_path.iterdir()} == wanted | {"mine.txt"}


def test_finetuning_reads_the_folder(tmp_path):
    from rcv.training import ClipFolder

    write_clips(tmp_path, "fireworks", 4, frames=6, size=32)
    folder = ClipFolder(tmp_path, 6, (32, 32), 1, "center")
    assert [clip.caption for clip in folder.clips] == [scene.caption for scene in clip_scenes("fireworks", 4)]
    assert {(clip.frames, clip.size) for clip in folder.clips} == {(6, (32, 32))}


def test_a_full_disk_leaves_whole_clips_with_captions_only(tmp_path, monkeypatch):
    written = clips.write_video

    def full_after_one(path, *arguments, **options):
        if any(tmp_path.glob("*.mkv")):
            raise OSError(errno.ENOSPC, f"cannot write {path}: No space left on device")
        return written(path, *arguments, **options)

    monkeypatch.setattr(clips, "write_video", full_after_one)
    with pytest.raises(OSError, match=r"01-.*mkv"):
        write_clips(tmp_path, "raining", 3, frames=2, size=32)
    (whole,) = tmp_path.glob("*.mkv")
    assert len(read_video(whole).frames) == 2
    assert parse_caption(whole.with_suffix(".txt").read_text())["theme"] == "raining"
    assert not list(tmp_path.glob(".*"))


def test_a_file_in_the_folder_s_place_is_named(tmp_path):
    (tmp_path / "clips").write_text("a file")
    with pytest.raises(OSError, match="clips"):
        write_clips(tmp_path / "clips", "raining", 1, frames=2, size=32)
    assert (tmp_path / "clips").read_text() == "a file"


def test_an_excluded_subject_is_in_no_clip():
    scenes = clip_scenes("animal walking", 24, exclude_subject=["elephant"])
    assert {scene.subject for scene in scenes} == set(SUBJECTS["animal walking"]) - {"elephant"}
    assert scenes == clip_scenes("animal walking", 24, exclude_subject="elephant")


def test_subjects_take_turns_and_combinations_differ():
    scenes = clip_scenes("fireworks", 20, seed=1)
    counts = [sum(scene.subject == subject for scene in scenes) for subject in SUBJECTS["fireworks"]]
    assert max(counts) - min(counts) <= 1
    assert len({(scene.subject, scene.color, scene.background) for scene in scenes}) == 20


def test_seeds_give_other_clips():
    assert clip_scenes("raining", 6, seed=0) == clip_scenes("raining", 6, seed=0)
    assert clip_scenes("raining", 6, seed=0) != clip_scenes("raining", 6, seed=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("animal waling", 2), "'animal walking'"),
        (("animal walking", 0), "count is 0"),
        (("animal walking", 2, 0, ["elefant"]), "'elephant'"),
        (("animal walking", 2, 0, SUBJECTS["animal walking"]), "no subject"),
        (("fireworks", 100_000), "more than the 660 combinations"),
    ],
)
def test_what_cannot_be_rendered_is_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        clip_scenes(*arguments)


def test_hyphens_stand_for_spaces():
    assert parse_caption(clip_scenes("horse-running", 1)[0].caption)["theme"] == "horse running"
