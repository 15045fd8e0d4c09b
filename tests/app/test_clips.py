"""What the app shows of clips, and what it keeps of uploads."""

import numpy as np
import pytest

from rcv.app.clips import contact_sheet, folder_strips, keep_uploads, theme_strips
from rcv.training.clips_config import ClipsConfig
from tests.training.clip_files import write_clip


def test_clips_of_a_folder_with_their_problems(tmp_path):
    write_clip(tmp_path, "good.mp4", frames=7, size=(32, 48), caption="a <b>square</b>")
    write_clip(tmp_path, "short.mp4", frames=2)
    write_clip(tmp_path, "silent.mp4", caption=None)
    (tmp_path / "broken.mp4").write_text("no video")
    (tmp_path / "broken.txt").write_text("a caption")
    strips, problems = folder_strips(ClipsConfig(clips=tmp_path, frames=4))
    assert [text.split(":")[0] for _, text in strips] == ["good.mp4", "short.mp4", "silent.mp4"]
    picture, text = strips[0]
    assert picture.shape == (96, 6 * 144, 3) and picture.dtype == np.uint8
    assert text == "good.mp4: a <b>square</b> (7 frames, 8 a second, 32x48)"
    assert [problem.split(":")[0] for problem in problems] == ["broken.mp4", "short.mp4", "silent.mp4"]
    assert "<b>" not in contact_sheet(strips)
    assert contact_sheet(strips).count("<figure>") == 3


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_clips_is_a_problem(tmp_path, name):
    (tmp_path / "empty").mkdir()
    strips, problems = folder_strips(ClipsConfig(clips=tmp_path / name, frames=4))
    assert strips == [] and len(problems) == 1


def test_clips_of_a_theme():
    strips = theme_strips(ClipsConfig(theme="birds flying", clip_count=3, frames=5), seed=1)
    assert len(strips) == 3
    assert strips[0][0].shape == (96, 5 * 96, 3)
    assert "flying" in strips[0][1]


def test_uploads_are_kept_with_their_captions(tmp_path):
    sent = tmp_path / "sent"
    files = [
        write_clip(sent, "a.mp4", caption="a fox"),
        sent / "a.txt",
        write_clip(sent, "b.mp4", caption=None),
    ]
    kept = keep_uploads([str(file) for file in files], "a bear", tmp_path / "kept")
    assert (kept / "a.txt").read_text() == "a fox"
    assert (kept / "b.txt").read_text() == "a bear\n"
    assert folder_strips(ClipsConfig(clips=kept, frames=4))[1] == []
    assert keep_uploads([str(files[0])], "", tmp_path / "kept") != kept
    with pytest.raises(ValueError, match=r"two of the files are called a\.mp4"):
        keep_uploads([str(files[0]), str(files[0])], "", tmp_path / "kept")
    with pytest.raises(ValueError, match="no files"):
        keep_uploads(None, "", tmp_path / "kept")
