"""JSONL and CSV files that list clips: columns, paths, parts, repeats, and what is wrong with a row."""

import json

import pytest

from rcv.data.entries import ClipsError
from rcv.data.sources import read_entries
from tests.training.clip_files import write_clip


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "b.mp4", "12345.mp4"):
        write_clip(tmp_path / "videos", name, frames=2, caption=None)
    return tmp_path


def jsonl(folder, *rows, name="clips.jsonl"):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return read_entries(folder / name)


def csv(folder, text, name="clips.csv", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return read_entries(folder / name)


@pytest.mark.parametrize("video", ["video", "file", "path"])
@pytest.mark.parametrize("caption", ["caption", "text", "name", "prompt"])
def test_columns_by_all_their_names(folder, video, caption):
    expected = [("videos/a.mp4", "one  two".replace("  ", " "))]
    rows = jsonl(folder, {video: "videos/a.mp4", caption: "one  two", "other": 3})
    assert [(row.name, row.caption) for row in rows] == expected
    rows = csv(folder, f"other,{video},{caption}\n3,videos/a.mp4,one  two\n")
    assert [(row.name, row.caption) for row in rows] == expected
    assert rows[0].path == folder / "videos" / "a.mp4" and rows[0].problems == ()


def test_webvid_s_columns(folder):
    write_clip(folder / "videos" / "000001_000050", "777.mp4", frames=2, caption=None)
    rows = csv(
        folder,
        "\ufeffvideoid,contentUrl,duration,page_dir,name\n"
        '12345,https://example.org/12345.mp4,PT00H00M13S,"000051_000100","A river, at dawn"\n'
        "777,https://example.org/777.mp4,PT00H00M07S,000001_000050,Dogs\n",
    )
    assert [row.caption for row in rows] == ["A river, at dawn", "Dogs"]
    assert [row.path for row in rows] == [
        folder / "videos" / "12345.mp4", folder / "videos" / "000001_000050" / "777.mp4",
    ]  # fmt: skip
    assert not any(row.problems for row in rows)


def test_parts_and_repeats(folder):
    rows = jsonl(
        folder,
        {"video": "videos/a.mp4", "caption": "x", "start": 1.5, "end": 3, "repeats": 4},
        {"video": "videos/b.mp4", "caption": "x", "start": None, "repeats": ""},
    )
    assert [(row.start, row.end, row.repeats) for row in rows] == [(1.5, 3.0, 4), (0.0, None, 1)]
    assert rows[0].name == "videos/a.mp4 [1.5 s to 3 s]"
    rows = csv(folder, "file,text,start,end,repeats\nvideos/a.mp4,x,,0.5,2\n")
    assert (rows[0].start, rows[0].end, rows[0].repeats) == (0.0, 0.5, 2)


def test_a_video_may_have_several_captions_but_not_the_same_row_twice(folder):
    rows = jsonl(
        folder,
        {"video": "videos/a.mp4", "caption": "one"},
        {"video": "videos/a.mp4", "caption": "two"},
        {"video": "videos/a.mp4", "caption": "one"},
    )
    assert [row.name for row in rows] == ["videos/a.mp4 (1)", "videos/a.mp4 (2)", "line 3"]
    assert rows[2].problems == ("line 3: the same as line 1; to draw it more often, set repeats",)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"video": "videos/a.mp4", "caption": ', "not JSON"),
        ("[1, 2]", "a JSON list, expected an object"),
        ("[" * 100_000, "not JSON"),
        ({"video": "videos/a.mp4", "caption": "half \ud800"}, "not JSON ('utf-8' codec can't encode"),
        ({"vidoe": "videos/a.mp4", "caption": "x"}, "no clip: expected video, file, path or videoid; it has vidoe"),
        ({"vidoe": "videos/a.mp4", "caption": "x"}, "did you mean 'video'"),
        ({"video": "videos/a.mp4", "captoin": "x"}, "did you mean 'caption'"),
        ({"video": "videos/a.mp4", "caption": " "}, "no caption: caption is empty"),
        ({"video": "", "caption": "x"}, "no clip: video is empty"),
        ({"video": "videos/a.mp4", "caption": 7}, "its caption is no text: 7"),
        ({"video": "videos/gone.mp4", "caption": "x"}, "no such file"),
        ({"video": "a\0b", "caption": "x"}, "a\0b"),
        ({"video": "a" * 5000, "caption": "x"}, "aaa"),
        ({"video": "videos/a.mp4", "caption": "x", "start": "soon"}, "start is 'soon', expected seconds"),
        ({"video": "videos/a.mp4", "caption": "x", "end": -1}, "end is -1, expected seconds"),
        ({"video": "videos/a.mp4", "caption": "x", "start": 3, "end": 2}, "end is 2, not after start, 3"),
        ({"video": "videos/a.mp4", "caption": "x", "repeats": 0}, "repeats is 0"),
        ({"video": "videos/a.mp4", "caption": "x", "repeats": 1e9}, "from 1 to 10000"),
        ({"video": "videos/a.mp4", "caption": "x", "repeats": 1.5}, "repeats is 1.5"),
        ({"video": "videos/a.mp4", "caption": "x", "start": float("nan")}, "start is nan"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_row_is_named_by_its_line(folder, row, said):
    good = {"video": "videos/b.mp4", "caption": "good"}
    rows = jsonl(folder, good, "", row)
    assert rows[0].problems == ()
    assert any(problem.startswith("line 3: ") and said in problem for problem in rows[1].problems), rows[1]


def test_what_is_wrong_with_a_csv_row(folder):
    rows = csv(folder, "video,caption\nvideos/a.mp4,one, two\nvideos/b.mp4,good\n\nvideos/a.mp4\n")
    assert [bool(row.problems) for row in rows] == [True, False, True]
    assert "line 2: 3 fields, the first row names 2 (quote what holds commas)" in rows[0].problems
    rows = csv(folder, "video,caption\nvideos/b.mp4,good\nvideos/a.mp4," + "x" * 200_000 + "\n")
    assert "not CSV" in rows[1].problems[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no row"),
        (b"\n \n", "no row"),
        (b"movie,caption\na.mp4,x\n", "no clip: expected video, file, path or videoid; it has movie, caption"),
        (b"video,captoin\na.mp4,x\n", "did you mean 'caption'"),
        ("video,caption\na.mp4,caf\xe9\n".encode("latin-1"), "not UTF-8 \\(byte 23\\)"),
        ("video,caption\na.mp4,x\n".encode("utf-16"), "not UTF-8"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_at_all(tmp_path, content, said):
    (tmp_path / "clips.csv").write_bytes(content)
    with pytest.raises(ClipsError, match=said):
        read_entries(tmp_path / "clips.csv")


def test_other_files_are_refused_and_a_folder_with_a_table_points_to_it(folder):
    (folder / "clips.parquet").write_bytes(b"x")
    with pytest.raises(ClipsError, match="expected a table"):
        read_entries(folder / "clips.parquet")
    (folder / "clips.parquet").unlink()
    jsonl(folder, {"video": "videos/a.mp4", "caption": "x"})
    with pytest.raises(ClipsError, match=r"holds clips\.jsonl; give that file itself"):
        read_entries(folder)


def test_davis_s_layout(tmp_path):
    home = tmp_path / "JPEGImages" / "480p"
    write_clip(home, "bear", frames=2, caption="a bear")
    write_clip(home, "camel", frames=2, caption=None)
    write_clip(home, "dog", frames=2, caption=None)
    write_clip(home, "swan", frames=2, caption=None)
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "camel.txt").write_text("a camel")
    (tmp_path / "dog.txt").write_text("a dog")
    rows = read_entries(tmp_path)
    assert [(row.name, row.caption) for row in rows] == [
        ("bear", "a bear"), ("camel", "a camel"), ("dog", "a dog"), ("swan", None),
    ]  # fmt: skip
    assert rows[3].problems == ("swan: no caption; write what it shows into swan.txt",)
    home.rename(tmp_path / "JPEGImages" / "1080p")
    assert [row.path.parent.name for row in read_entries(tmp_path)] == ["1080p"] * 4
