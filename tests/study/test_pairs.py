"""Which pairs a folder gives, and what is named of one that gives none."""

import json

import pytest

from rcv.study import StudyError, find_pairs
from rcv.video import write_video
from tests.study.videos import write_arms
from tests.training.clip_files import moving_square


def problems_of(folder, **options):
    with pytest.raises(StudyError) as raised:
        find_pairs(folder, **options)
    return list(raised.value.problems)


def test_every_two_arms_of_every_name(tmp_path):
    pairs, notes = find_pairs(write_arms(tmp_path, arms=("c", "a", "b"), names=("x", "y")))
    assert [(pair.name, pair.arms) for pair in pairs] == [
        (name, arms) for name in "xy" for arms in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    assert pairs[0].prompt == "a x walking" and notes == []
    assert pairs[0].videos == (tmp_path / "a" / "x.gif", tmp_path / "b" / "x.gif")


def test_prompts_of_a_file(tmp_path):
    folder = write_arms(tmp_path / "study", names=("x",))
    (folder / "x.txt").unlink()
    (folder / "prompts.json").write_text(json.dumps({"x": "a  fox"}))
    assert find_pairs(folder)[0][0].prompt == "a fox"
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"x": "a bear"}))
    assert find_pairs(folder, other)[0][0].prompt == "a bear"
    other.write_text("[1")
    assert "JSON" in problems_of(folder, prompts=other)[0]


def test_everything_wrong_is_named(tmp_path):
    folder = write_arms(tmp_path, names=("alone", "broken", "differs", "empty", "twice", "mixed", "good"))
    (folder / "theirs" / "alone.gif").unlink()
    (folder / "ours" / "broken.gif").write_bytes((folder / "ours" / "broken.gif").read_bytes()[:60])
    (folder / "differs.txt").unlink()
    (folder / "ours" / "differs.txt").write_text("a fox")
    (folder / "theirs" / "differs.txt").write_text("a bear")
    (folder / "empty.txt").write_text(" \n")
    write_video(folder / "ours" / "twice.mp4", moving_square(3))
    (folder / "ours" / "mixed.gif").unlink()
    write_video(folder / "ours" / "mixed.mp4", moving_square(3))
    said = "\n".join(problems_of(folder))
    for words in (
        "theirs: no video 'alone'",
        "ours/broken.gif: ",
        "differs: the prompts differ: 'a fox' in ours/differs.txt, 'a bear' in theirs/differs.txt",
        "empty: no prompt",
        "ours: twice.gif and twice.mp4 share a name",
        "mixed: its formats differ",
    ):
        assert words in said
    assert "good" not in said


def test_what_tells_arms_apart_is_noted(tmp_path):
    write_arms(tmp_path, names=("x",))
    write_video(tmp_path / "ours" / "x.gif", moving_square(6))
    pairs, notes = find_pairs(tmp_path)
    assert len(pairs) == 1
    assert notes == [
        "x: ours and theirs have 6 frames of 32x32 and 4 frames of 32x32: raters could tell them apart"
    ]


@pytest.mark.parametrize("made", [None, "folder", "one arm"])
def test_a_folder_without_two_arms(tmp_path, made):
    folder = tmp_path / "study"
    if made == "folder":
        folder.mkdir()
    elif made:
        write_arms(folder, arms=("ours",))
    assert "ARM/NAME.mp4" in problems_of(folder)[0]
