"""`rcv evaluate` as a user meets it."""

import json

import numpy as np
import pytest

from tests.tiny import make_tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", rng.integers(0, 256, (2, 32, 32, 3), np.uint8))
    return folder


def test_a_good_set_prints_a_table_and_succeeds(rcv, clip, videos, tmp_path):
    files = ["--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv"]
    status, out, err = rcv("evaluate", videos, "--prompts", "a red fox", "--clip", clip, *files)
    assert (status, err) == (0, "")
    assert "a.npy" in out and "mean" in out and "--reference" in out
    assert len(json.loads((tmp_path / "s.json").read_text())["videos"]) == 2
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 3


def test_problems_go_to_standard_error_and_the_exit_status(rcv, clip, videos):
    (videos / "c.mp4").write_bytes(b"")
    (videos / "a.npy").rename(videos / "[red]a.npy")
    status, out, err = rcv("evaluate", videos, "--prompts", "a red fox", "--clip", clip)
    assert status == 1
    assert "c.mp4: empty file" in err and "[red]a.npy" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clip", "nowhere"], "nowhere: no such folder"),
        (["--flow", "lucas"], "unknown flow 'lucas'"),
        (["--flow", "raft"], "--flow-weights"),
        (["--prompts", "nowhere.csv"], "nowhere.csv: no such file of prompts"),
        (["--reference", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_what_cannot_be_evaluated_at_all_is_one_line(rcv, clip, videos, arguments, message):
    if "--clip" not in arguments:
        arguments = ["--clip", clip, *arguments]
    status, _, err = rcv("evaluate", videos, *arguments)
    assert status == 1
    assert message in err and len(err.strip().splitlines()) == 1


def test_missing_opencv_is_said_with_what_to_do(rcv, clip, videos, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("rcv.evaluation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cv2", None)
    status, _, err = rcv("evaluate", videos, "--prompts", "a", "--clip", clip)
    assert status == 1 and "rcv-video[evaluation]" in err
