"""Sets of videos: what cannot be evaluated is named, the rest goes on."""

import csv
import json

import numpy as np
import pytest

from rcv.evaluation.evaluate import evaluate_videos
from rcv.evaluation.scores import METRICS
from rcv.evaluation.table import motion_verdict, write_csv, write_json


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, translation):
    """A folder with two good videos and one of each thing that goes wrong."""
    folder = tmp_path_factory.mktemp("mixed")
    moving = translation(3)
    for name in ("a", "b", "c", "unprompted"):
        np.save(folder / f"{name}.npy", moving)
    np.save(folder / "longer.npy", translation(4))
    np.save(folder / "smaller.npy", moving[:, :32])
    np.save(folder / "still.npy", np.repeat(moving[:1], 3, 0))
    np.save(folder / "single.npy", moving[:1])
    np.save(folder / "nan.npy", np.full((3, 64, 64, 3), np.nan, np.float32))
    (folder / "broken.mp4").write_bytes(b"\x00" * 100)
    prompts = {path.stem: "a red fox" for path in folder.iterdir() if path.stem != "unprompted"}
    (folder / "prompts.json").write_text(json.dumps({**prompts, "gone": "an ox"}))
    return folder


@pytest.fixture(scope="module")
def found(mixed, clip):
    return evaluate_videos([mixed], clip, mixed / "prompts.json", reference=[mixed / "a.npy"])


def test_every_problem_is_named_and_the_rest_is_evaluated(mixed, found):
    by_name = {video.path.stem: video for video in found.videos}
    assert len(by_name) == 10
    expected = {
        "unprompted": "prompts.json names no unprompted.npy",
        "longer": "4 frames of 64x64, the others 3 of 64x64: left out of the means",
        "smaller": "3 frames of 32x64, the others 3 of 64x64",
        "single": "one frame only",
        "nan": "NaN",
        "broken": "0 frames could be read",
    }
    for name, video in by_name.items():
        assert bool(video.problems) == (name in expected), video
        assert expected.get(name, "") in " ".join(video.problems)
        assert (video.scores is None) == (name in ("nan", "broken"))
    assert any("names gone, which is not there" in problem for problem in found.all_problems())
    assert sum(f"{mixed / 'nan.npy'}: " in problem for problem in found.all_problems()) == 1


def test_means_are_over_videos_of_the_common_shape(found):
    rows = [video.scores for video in found.videos if video.shape == (3, 64, 64)]
    assert found.shape == (3, 64, 64) and len(rows) == 5
    assert found.means["motion"] == pytest.approx(np.mean([row["motion"] for row in rows]))
    prompted = [row["clip_score"] for row in rows if row["clip_score"] == row["clip_score"]]
    assert len(prompted) == 4 and found.means["clip_score"] == pytest.approx(np.mean(prompted))


def test_consistency_counts_where_motion_is_like_the_true_clips(found):
    answers = {video.path.stem: video.moves_as_reference for video in found.videos}
    assert answers["a"] is True and answers["longer"] is True
    assert answers["still"] is False
    assert answers["single"] is None and answers["broken"] is None
    # one in five is still: the mean motion is just 20 % below
    assert answers["smaller"] is False  # the same pixels a frame are twice the share of half the side
    assert "5 of 7 videos move within 20 %" in motion_verdict(found)


def test_the_files_hold_everything_and_nothing_undefined_as_a_number(found, tmp_path):
    write_json(tmp_path / "s.json", found)
    document = json.loads((tmp_path / "s.json").read_text(), parse_constant=pytest.fail)
    assert document["shape"] == [3, 64, 64] and document["metrics"].keys() == METRICS.keys()
    single = next(video for video in document["videos"] if video["video"].endswith("single.npy"))
    assert single["scores"]["motion"] is None and single["undefined"]["motion"] == "one frame only"
    write_csv(tmp_path / "s.csv", found)
    with open(tmp_path / "s.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == [str(video.path) for video in found.videos]
    a = next(row for row in rows if row["video"].endswith("a.npy"))
    video = next(video for video in found.videos if video.path.stem == "a")
    assert float(a["warping_error"]) == video.scores["warping_error"] and a["problems"] == ""
    assert next(row for row in rows if row["video"].endswith("nan.npy"))["motion"] == ""


def test_without_true_clips_the_verdict_asks_for_them(mixed, clip):
    found = evaluate_videos([mixed / "a.npy"], clip, "a red fox")
    assert found.reference_motion is None and found.moves_as_reference is None
    assert found.all_problems() == ()
    assert "--reference" in motion_verdict(found)


def test_a_set_that_moves_otherwise_is_told_that_its_consistency_does_not_count(mixed, clip):
    still = evaluate_videos([mixed / "still.npy"], clip, "a red fox", reference=[mixed / "a.npy"])
    assert still.moves_as_reference is False and "do not count" in motion_verdict(still)
    alike = evaluate_videos([mixed / "b.npy"], clip, "a red fox", reference=[mixed / "a.npy"])
    assert alike.moves_as_reference is True and "flicker count for the set" in motion_verdict(alike)


def test_true_clips_that_cannot_be_read_are_named(mixed, clip):
    found = evaluate_videos(
        [mixed / "a.npy"], clip, "a red fox",
        reference=[mixed / "broken.mp4", mixed / "single.npy", mixed / "b.npy"],
    )  # fmt: skip
    assert found.moves_as_reference is True
    first, second = found.all_problems()
    assert "broken.mp4 (reference)" in first and "single.npy (reference): one frame only" in second
