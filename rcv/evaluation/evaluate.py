"""Evaluation of a set of videos: what cannot be evaluated is named, the rest goes on."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rcv.evaluation.flow import dis_flow
from rcv.evaluation.scores import METRICS, VideoScores, video_scores
from rcv.evaluation.videos import find_videos, read_frames, with_prompts
from rcv.evaluation.warping import measure_warping

MOTION_MARGIN = 0.2
"""Consistency counts where motion differs from the true clips' by at most this share: a still video is consistent."""


@dataclass(frozen=True)
class VideoResult:
    """What was found about one video.

    Attributes
    ----------
    path : pathlib.Path
    prompt : str or None
    shape : (int, int, int) or None
        Frames, height and width; None if the video could not be read.
    scores : VideoScores or None
    problems : tuple of str
        Why it has no scores, or some of them undefined, or is left out of the means.
    moves_as_reference : bool or None
        Whether its motion is within 20 % of the true clips'; None without true clips, or without motion.
    """

    path: Path
    prompt: str | None
    shape: tuple[int, int, int] | None
    scores: VideoScores | None
    problems: tuple[str, ...] = ()
    moves_as_reference: bool | None = None


@dataclass(frozen=True)
class Evaluation:
    """Results of a set of videos.

    Attributes
    ----------
    videos : tuple of VideoResult
    shape : (int, int, int) or None
        Frames, height and width that most videos have: the means are over these.
    reference_motion : float or None
        Mean motion of the true clips.
    clip, flow : str
        Names of the CLIP model and of the estimator of optical flow.
    problems : tuple of str
        Those of no single video: true clips that cannot be read, prompts of videos that are not there.
    """

    videos: tuple[VideoResult, ...]
    shape: tuple[int, int, int] | None
    reference_motion: float | None
    clip: str
    flow: str
    problems: tuple[str, ...] = ()

    @property
    def means(self):
        """Return {metric: mean over the videos of the common shape that have it; NaN if none has}."""
        rows = [video.scores for video in self.videos if video.scores and video.shape == self.shape]
        means = {}
        for name in METRICS:
            values = [row[name] for row in rows if row[name] == row[name]]
            means[name] = float(np.mean(values)) if values else float("nan")
        return means

    @property
    def moves_as_reference(self):
        """Return whether the mean motion is within 20 % of the true clips'; None without true clips."""
        return _close(self.means["motion"], self.reference_motion)

    def all_problems(self):
        """Return every problem as a sentence that names its video."""
        named = [f"{video.path}: {problem}" for video in self.videos for problem in video.problems]
        return (*self.problems, *named)


def evaluate_videos(paths, clip, prompts=None, reference=(), flow=dis_flow, progress=None):
    """Return the Evaluation of videos.

    Parameters
    ----------
    paths, reference : sequence of path
        Videos, and true clips that they are to move like: as `videos.find_videos` takes them.
    clip : ImageTextModel
    prompts : str or path, optional
        As `videos.with_prompts` takes them.
    flow : callable
        Estimates optical flow, as `warping.measure_warping` takes it.
    progress : callable, optional
        Called with (videos done, videos).

    Raises
    ------
    FileNotFoundError, ValueError
        Nothing at a path, a folder without videos, a table of prompts that cannot be read. What is wrong with a single
        video is a problem of its result.
    """
    files, problems = with_prompts(find_videos(paths), prompts)
    motion, wrong = _reference_motion(find_videos(reference), flow) if reference else (None, [])
    results = []
    for file in files:
        results.append(_evaluate(file, clip, flow, motion))
        if progress is not None:
            progress(len(results), len(files))
    shapes = Counter(result.shape for result in results if result.shape is not None)
    shape = shapes.most_common(1)[0][0] if shapes else None
    results = [_with_shape_checked(result, shape) for result in results]
    name = getattr(flow, "name", "DIS")
    return Evaluation(tuple(results), shape, motion, clip.name, name, (*problems, *wrong))


def _evaluate(file, clip, flow, reference_motion):
    try:
        frames = read_frames(file.path)
        scores = video_scores(frames, file.prompt, clip, flow)
    except Exception as error:  # whatever a decoder throws at a hostile file is that file's problem
        return VideoResult(file.path, file.prompt, None, None, (_reason(file.path, error),))
    reasons = {**scores.reasons}
    problems = []
    if file.prompt is None:
        reasons.pop("clip_score")
        problems.append(file.no_prompt)
    if len(frames) < 2:
        reasons.clear()
        problems.append("one frame only: nothing that compares frames is defined")
    # other conventions want larger frames and keypoints: blanks in the files, no fault of the video
    for name in ("warping_error_evalcrafter", "warping_error_homography"):
        reasons.pop(name, None)
    problems += [f"{name}: {reason}" for name, reason in reasons.items()]
    return VideoResult(
        file.path, file.prompt, frames.shape[:3], scores, tuple(problems),
        _close(scores["motion"], reference_motion),
    )  # fmt: skip


def _with_shape_checked(result, shape):
    if result.shape in (None, shape):
        return result
    (count, height, width), (most, high, wide) = result.shape, shape
    problem = f"{count} frames of {height}x{width}, the others {most} of {high}x{wide}: left out of the means"
    return VideoResult(
        result.path, result.prompt, result.shape, result.scores, (*result.problems, problem),
        result.moves_as_reference,
    )  # fmt: skip


def _reference_motion(paths, flow):
    """Return the mean motion of true clips (None if there is none) and the problems with them."""
    motions, problems = [], []
    for path in paths:
        try:
            frames = read_frames(path)
            if len(frames) < 2:
                raise ValueError("one frame only, so it has no motion")
            motions.append(measure_warping(frames, flow).motion)
        except Exception as error:  # as above
            problems.append(f"{path} (reference): {_reason(path, error)}")
    return (float(np.mean(motions)) if motions else None), problems


def _reason(path, error):
    return str(error).removeprefix(f"{path}: ") or type(error).__name__


def _close(motion, reference):
    if reference is None or motion != motion:
        return None
    return abs(motion - reference) <= MOTION_MARGIN * reference
