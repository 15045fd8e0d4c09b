"""Which videos are found, how they are read, and which prompt each gets."""

import json

import numpy as np
import pytest
from PIL import Image

from rcv.evaluation.videos import find_videos, read_frames, with_prompts
from rcv.video import write_video


def frames(count=3, value=None):
    video = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
    if value is not None:
        video[:] = value
    return video


def names(paths):
    return [path.name for path in paths]


def test_a_folder_of_videos_is_taken_in_numeric_order(tmp_path):
    for name in ("video_10.mkv", "video_2.mkv"):
        write_video(tmp_path / name, frames())
    write_video(tmp_path / "video_3", frames())
    np.save(tmp_path / "video_1.npy", frames())
    for name in ("notes.md", ".hidden.mp4", "video_2.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "empty").mkdir()
    assert names(find_videos([tmp_path])) == ["video_1.npy", "video_2.mkv", "video_3", "video_10.mkv"]


def test_a_folder_of_frames_is_one_video_in_numeric_order(tmp_path):
    for number in (0, 1, 2, 10, 11):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"frame_{number}.png")
    assert find_videos([tmp_path]) == [tmp_path]
    assert read_frames(tmp_path)[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11]


def test_what_is_not_there_or_holds_nothing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_videos([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="holds no video"):
        find_videos([tmp_path])
    Image.new("RGB", (4, 4)).save(tmp_path / "frame.png")
    write_video(tmp_path / "a.mkv", frames())
    with pytest.raises(ValueError, match=r"both frames \(frame\.png\) and videos \(a\.mkv\)"):
        find_videos([tmp_path])


def test_arrays_are_read_and_floats_become_8_bit(tmp_path):
    np.save(tmp_path / "a.npy", frames() / 255)
    np.savez(tmp_path / "b.npz", frames=frames(), fps=8)
    np.savez(tmp_path / "c.npz", anything=frames())
    for name in ("a.npy", "b.npz", "c.npz"):
        np.testing.assert_array_equal(read_frames(tmp_path / name), frames())


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (lambda file: np.savez(file, a=frames(), b=frames()), "holds a, b"),
        (lambda file: np.savez(file, frames=np.full((2, 4, 4, 3), np.nan)), "NaN"),
        (lambda file: np.savez(file, frames=np.array([{}], object)), "cannot be read as an array"),
        (lambda file: file.write_bytes(b"PK\x03\x04 not really"), "cannot be read as an array"),
    ],
)
def test_arrays_that_are_no_video_are_refused(tmp_path, save, message):
    file = tmp_path / "a.npz"
    save(file)
    with pytest.raises(ValueError, match=message):
        read_frames(file)


@pytest.fixture
def two(tmp_path):
    """Paths of two videos, which need not exist to be given prompts."""
    return [tmp_path / "a.mp4", tmp_path / "b.v2.mp4"]


def test_prompts_stand_beside_the_videos(two):
    two[0].with_suffix(".txt").write_text("  a red\n fox ", encoding="utf-8-sig")
    files, problems = with_prompts(two)
    assert [file.prompt for file in files] == ["a red fox", None]
    assert files[1].no_prompt == "no b.v2.txt beside it, and no --prompts"
    assert problems == []
    two[1].with_suffix(".txt").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in with_prompts(two)[0][1].no_prompt


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", json.dumps({"a.mp4": "a red fox", "b.v2": "an ox"})),
        (
            "p.json",
            json.dumps([{"file_name": "a.mp4", "text": "a red fox"}, {"video": "b.v2", "prompt": "an ox"}]),
        ),
        (
            "p.jsonl",
            '{"video": "somewhere/a.mp4", "caption": "a red fox"}\n\n{"video": "b.v2", "caption": "an ox"}\n',
        ),
        ("p.csv", "video,prompt\na,a red fox\nb.v2.mp4,an ox\n"),
    ],
)
def test_tables_name_videos_with_or_without_suffix(two, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    files, problems = with_prompts(two, tmp_path / name)
    assert [file.prompt for file in files] == ["a red fox", "an ox"]
    assert problems == []


def test_one_prompt_for_all_as_text_or_from_a_file(two, tmp_path):
    (tmp_path / "all.txt").write_text("a red fox\n")
    for prompts in ("a red fox", str(tmp_path / "all.txt")):
        assert [file.prompt for file in with_prompts(two, prompts)[0]] == ["a red fox"] * 2
    assert with_prompts(two, " ")[0][0].no_prompt == "the prompt is empty"


def test_videos_that_a_table_leaves_out_and_rows_without_a_video_are_named(two, tmp_path):
    table = tmp_path / "p.csv"
    table.write_text("video,prompt\na,a red fox\nc.mp4,an ox\n")
    files, problems = with_prompts(two, table)
    assert files[1].prompt is None and files[1].no_prompt == f"{table} names no b.v2.mp4"
    assert problems == [f"{table} names c.mp4, which is not there"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.json", "{", "cannot be read"),
        ("p.json", "3", "holds no prompts"),
        ("p.csv", "", "holds no prompts"),
        ("p.csv", "clip,words\na,b\n", "row 1: expected a video and a prompt"),
        ("p.jsonl", '{"video": "a", "prompt": 3}', "row 1"),
        ("p.csv", "video,prompt\na,b\na,c\n", "names a twice"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(two, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        with_prompts(two, tmp_path / name)


def test_a_table_that_is_not_there_is_no_prompt(two, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        with_prompts(two, tmp_path / "nowhere.csv")
