"""`rcv clips`: what it lists, the sheet, and its exit status."""

import json

import pytest
from PIL import Image

from tests.training.clip_files import write_clip


@pytest.fixture
def folder(tmp_path):
    for number in range(2):
        write_clip(
            tmp_path / "clips",
            f"{number}.mkv",
            frames=9,
            seed=number,
            caption=f"square {number}",
            lossless=True,
        )
    write_clip(
        tmp_path / "clips",
        "wide.mkv",
        frames=5,
        size=(32, 48),
        caption="a [bold]wide[/]\x1b[31m one",
        lossless=True,
    )
    return tmp_path / "clips"


def test_sound_clips_are_listed(rcv, folder):
    status, out, _ = rcv("clips", folder, "--frames", 4)
    assert status == 0
    assert "3 of 3 clips can be trained on (3 of 4x64x64)" in out  # the embedded model's own size
    assert "\x1b[31m" not in out
    for said in ("0.mkv", "square 1", "[bold]wide[/]", "32x48"):
        assert said in out


def test_json_says_all(rcv, folder):
    status, out, _ = rcv("clips", folder, "--buckets", "4x32x32,2x32x48", "--fps", 4, "--json")
    assert status == 0
    report = json.loads(out)
    assert report["sound"] == 3 and report["problems"] == []
    assert report["buckets"] == {"4x32x32": 2, "2x32x48": 1}
    assert report["clips"][2] == {
        "name": "wide.mkv", "path": str(folder / "wide.mkv"), "caption": "a [bold]wide[/]\x1b[31m one",
        "frames": 5, "fps": 8.0, "size": [32, 48], "used_frames": 2, "bucket": "2x32x48", "repeats": 1, "problems": [],
    }  # fmt: skip


def test_problems_are_the_exit_status(rcv, folder, tmp_path):
    (folder / "zero.mp4").write_bytes(b"")
    status, out, _ = rcv("clips", folder, "--frames", 9, "--size", 32)
    assert status == 1
    assert "2 of 4 clips can be trained on" in out
    for said in (
        "zero.mp4: empty file",
        "zero.mp4: no caption; write what it shows into zero.txt",
        "wide.mkv: 5 frames, fewer than the 9 that a sample of 9 spans",
    ):
        assert said in out
    assert rcv("clips", folder, "--frames", 9, "--size", 32, "--json")[0] == 1
    status, _, err = rcv("clips", tmp_path / "gone")
    assert status == 1 and "no such folder or file" in err
    status, _, err = rcv("clips", folder, "--buckets", "4x32")
    assert status == 2 and "'4x32' is no bucket" in err


def test_the_sheet_shows_every_clip(rcv, folder, tmp_path):
    (folder / "zero.mp4").write_bytes(b"")
    status, out, _ = rcv(
        "clips", folder, "--frames", 4, "--size", 32, "--sheet", tmp_path / "new" / "sheet.png"
    )
    assert status == 1 and "sheet.png" in out
    sheet = Image.open(tmp_path / "new" / "sheet.png").convert("RGB")
    assert sheet.width == 1058 and sheet.height > 3 * 96
    colours = {colour for _, colour in sheet.getcolors(1 << 20)}
    assert (180, 20, 20) in colours and len(colours) > 20


def test_a_table_is_listed_with_its_repeats(rcv, folder):
    row = {"video": "clips/0.mkv", "caption": "x", "end": 0.5, "repeats": 7}
    table = folder.parent / "clips.jsonl"
    table.write_text(json.dumps(row) + "\n{\n")
    status, out, _ = rcv("clips", table, "--frames", 4, "--size", 32)
    assert status == 1
    assert "1 of 2 clips can be trained on (7 of 4x32x32)" in out
    assert "4 of 9" in out and "line 2: not JSON" in out
