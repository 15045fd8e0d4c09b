"""What counts of a clip: its part, the rate asked for, and files that are decoded once."""

import numpy as np
import pytest

from rcv.data import facts as module
from rcv.data.buckets import Bucket
from rcv.data.cache import Cache
from rcv.data.facts import Facts
from rcv.data.survey import survey
from tests.data.hostile import encode
from tests.training.clip_files import moving_square, write_clip

BUCKETS = [Bucket(2, 32, 32)]


def regular(fps, frames, start=0.0):
    return Facts((32, 32), tuple(np.round(start + np.arange(frames) / fps, 3).tolist()), "")


@pytest.mark.parametrize("start", [0.0, 7.123])
@pytest.mark.parametrize(
    ("fps", "asked", "expected"),
    [
        (30, 30, range(30)),
        (30, 15, range(0, 30, 2)),
        (30, 10, range(0, 30, 3)),
        (8, 16, [number // 2 for number in range(60)]),
        (30, 8, [0, 3, 7, 11, 15, 18, 22, 26]),
        (29.97, 29.97, range(30)),
    ],
)
def test_a_rate_chooses_the_frames_shown_at_its_moments(fps, asked, expected, start):
    facts = regular(fps, 30, start)
    found = facts.frames_at(asked, np.arange(30)).tolist()
    assert found == list(expected)[: len(found)]
    assert abs(len(found) - 30 * asked / fps) <= 1


def test_a_variable_frame_rate_goes_by_its_time_stamps():
    facts = Facts((32, 32), (0.0, 0.04, 0.4, 0.41, 0.9, 1.3, 1.31, 2.0), "")
    assert facts.frames_at(10, np.arange(8)).tolist()[:20] == [
        *(0, 1, 1, 1, 2, 3, 3, 3, 3, 4),
        *(4, 4, 4, 5, 6, 6, 6, 6, 6, 6),
    ]
    assert facts.frames_between(0.4, 1.3).tolist() == [2, 3, 4]
    assert facts.frames_at(10, facts.frames_between(0.4, 1.3)).tolist()[:5] == [2, 3, 3, 3, 3]


def test_parts_and_rates_of_a_file(tmp_path):
    encode(tmp_path / "a.mkv", times=[0, 40, 400, 410, 900, 1300, 1310, 2000])
    (tmp_path / "clips.jsonl").write_text(
        '{"video": "a.mkv", "caption": "x", "start": 0.4, "end": 1.35, "repeats": 3}'
    )
    (found,) = survey(tmp_path / "clips.jsonl", BUCKETS, 1, None, Cache(None))
    assert found.clip.indices == (2, 3, 4, 5, 6) and found.clip.repeats == 3
    (found,) = survey(tmp_path / "clips.jsonl", BUCKETS, 1, 5, Cache(None))
    assert found.clip.indices[:5] == (2, 3, 3, 4, 4)


def test_too_short_at_the_rate_asked_for(tmp_path):
    write_clip(tmp_path, "a.mkv", frames=8)
    (found,) = survey(tmp_path, [Bucket(6, 32, 32), Bucket(4, 32, 48)], 1, 2, Cache(None))
    assert found.clip is None
    said = "a.mkv: 2 frames at 2 frames a second, fewer than the 4 that a sample of the shortest bucket, one of 4 spans"
    assert found.problems == (said,)


def test_a_file_is_decoded_once_wherever_it_lies(tmp_path, monkeypatch):
    decoded = []
    original = module.iter_timed_frames
    monkeypatch.setattr(module, "iter_timed_frames", lambda path: decoded.append(path.name) or original(path))
    write_clip(tmp_path / "clips", "a.mkv")
    write_clip(tmp_path / "clips", "b", seed=1)
    first = survey(tmp_path / "clips", BUCKETS, 1, None, Cache(tmp_path / "cache"))
    assert decoded == ["a.mkv", "b"]
    (tmp_path / "clips").rename(tmp_path / "moved")
    again = survey(tmp_path / "moved", BUCKETS, 1, None, Cache(tmp_path / "cache"))
    assert decoded == ["a.mkv", "b"]
    assert [found.facts for found in again] == [found.facts for found in first]
    write_clip(tmp_path / "moved", "a.mkv", seed=7)
    (tmp_path / "moved" / "b" / "frame_00007.png").unlink()
    changed = survey(tmp_path / "moved", BUCKETS, 1, None, Cache(tmp_path / "cache"))
    assert decoded == ["a.mkv", "b", "a.mkv", "b"]
    assert [len(found.facts.times) for found in changed] == [8, 7]
    assert not {found.clip.digest for found in changed} & {found.clip.digest for found in first}


def test_damaged_clips_are_decoded_again_each_time(tmp_path):
    """Why one cannot be read may lie outside it: nothing bad is kept."""
    write_clip(tmp_path / "clips", "a.mp4", frames=40)
    whole = (tmp_path / "clips" / "a.mp4").read_bytes()
    (tmp_path / "clips" / "a.mp4").write_bytes(whole[: len(whole) // 2])
    cache = Cache(tmp_path / "cache")
    for _ in range(2):
        (found,) = survey(tmp_path / "clips", BUCKETS, 1, None, cache)
        assert "cut off" in found.problems[0]
    assert not (tmp_path / "cache").exists()


def test_turned_videos_have_the_size_that_is_shown(tmp_path):
    encode(tmp_path / "turned.mp4", codec="mpeg4", frames=moving_square(8, (32, 48)), rotation=90)
    (tmp_path / "turned.txt").write_text("turned")
    (found,) = survey(tmp_path, BUCKETS, 1, None, Cache(None))
    assert found.facts.size == (48, 32)
