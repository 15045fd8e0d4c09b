"""Numbers of a study: means of arms with intervals, and paired differences."""

from dataclasses import dataclass

import numpy as np

from rcv.reproduce.cells import study_cells
from rcv.reproduce.intervals import mean_interval, paired_interval

SCORES = {
    "truth": "motion truth",
    "clip_score": "CLIP-Score",
    "clip_temp": "CLIP-Temp",
    "warping_error": "warping error x1e3",
    "motion": "motion",
    "background_consistency": "background consistency",
    "flicker": "flicker",
}
"""Columns by the names of the scores; the first is what decides."""
PARTS = {
    "truth_subject": "subject",
    "truth_place": "place",
    "truth_course": "course",
    "truth_rhythm": "rhythm",
    "truth_speed": "speed",
}
QUARTERS = {
    "subject_1": "first quarter",
    "subject_2": "second",
    "subject_3": "third",
    "subject_4": "last",
}
"""Subject correctness over the frames of each quarter of the videos."""
COMPARED = ("truth", "clip_score", "clip_temp", "warping_error")
"""Scores that have a plot."""
DIFFERENCES = (*COMPARED, "truth_course", "truth_rhythm")
"""Scores whose paired differences are given: the table's, and the two parts of movement."""
SCALES = {"warping_error": 1e3}
STILLNESS = ("clip_temp", "warping_error")
"""Scores that a still video wins: they count where the motion is that of the true clips."""
MOTION_TOLERANCE = 0.2


@dataclass(frozen=True)
class Row:
    """One arm of a study.

    Attributes
    ----------
    arm : str
    scores : dict of str to Interval
    counts : bool
        Whether the motion lies within 20 % of the true clips': CLIP-Temp and warping error count. True for want of a
        measure where the true clips are not there.
    train_seconds, step_seconds, cell_seconds, peak_bytes : float
        Means over cells; nan where nothing was trained or it was not measured.
    cells, wanted, failed : int
        Cells there, cells of the study, cells whose training diverged.
    by_frame : array [F]
        Subject correctness at each frame index, mean over videos; empty without cells.
    """

    arm: str
    scores: dict
    counts: bool
    train_seconds: float
    step_seconds: float
    cell_seconds: float
    peak_bytes: float
    cells: int
    wanted: int
    failed: int
    by_frame: np.ndarray


@dataclass(frozen=True)
class Table:
    """A study's Rows, and {(own, rival): {score: Interval}} of own minus rival over the cells that both have."""

    study: object
    rows: tuple[Row, ...]
    differences: dict
    cells: dict
    """{(arm, theme, seed): Cell} of all that are there."""

    @property
    def over_time(self):
        """Whether quality over the frames is what the study is about: its arms say how many they sample."""
        return any(arm.frames is not None for arm in self.study.arms)

    def shown(self):
        """Return the Rows and the paired differences that rest on one cell at least."""
        rows = [row for row in self.rows if row.cells]
        return rows, {pair: d for pair, d in self.differences.items() if d["truth"].cells}


def study_table(config, study):
    """Return the Table of what is there of a Study."""
    found, results = {}, {}
    for cell in study_cells(config, study):
        result = cell.result()
        if result is not None:
            found[cell.arm.name, cell.theme, cell.seed] = cell
            results.setdefault(cell.arm.name, {})[cell.theme, cell.seed] = result
    wanted = len(study.themes) * len(study.seeds)
    values = {arm: _scores_by_cell(by_cell) for arm, by_cell in results.items()}
    truths = {
        arm.frames: values.get(arm.name, {}).get("motion", {}) for arm in study.arms if arm.preset is None
    }
    rows = tuple(
        _row(
            arm.name, results.get(arm.name, {}), values.get(arm.name, {}), truths.get(arm.frames, {}), wanted
        )
        for arm in study.arms
    )
    differences = {
        (own, rival): {
            name: paired_interval(values.get(own, {}).get(name, {}), values.get(rival, {}).get(name, {}))
            for name in (*DIFFERENCES, *QUARTERS)
        }
        for own, rival in study.pairs
    }
    return Table(study, rows, differences, found)


def _scores_by_cell(results):
    """{score: {cell: mean over the cell's videos}} of one arm, in the table's units."""
    values = {}
    for cell, result in results.items():
        videos = [{**video["scores"], **_quarters(video["subject_by_frame"])} for video in result["videos"]]
        for name in (*SCORES, *PARTS, *QUARTERS):
            mean = _mean(video.get(name) for video in videos)
            values.setdefault(name, {})[cell] = mean * SCALES.get(name, 1.0)
    return values


def _quarters(by_frame):
    """{quarter: mean of its frames}; nothing of videos that are too short for quarters."""
    if len(by_frame) < len(QUARTERS):
        return {}
    parts = np.array_split(by_frame, len(QUARTERS))
    return {name: float(np.mean(part)) for name, part in zip(QUARTERS, parts, strict=True)}


def _row(arm, results, values, truth, wanted):
    shared = [cell for cell in values.get("motion", {}) if cell in truth]
    motion = _mean(values["motion"][cell] for cell in shared)
    true_motion = _mean(truth[cell] for cell in shared)
    within = not shared or abs(motion - true_motion) <= MOTION_TOLERANCE * true_motion
    frames = [video["subject_by_frame"] for result in results.values() for video in result["videos"]]
    kept = list(results.values())
    return Row(
        arm=arm,
        scores={name: mean_interval(values.get(name, {})) for name in (*SCORES, *PARTS, *QUARTERS)},
        counts=bool(within),
        train_seconds=_mean(result.get("train_seconds") for result in kept),
        step_seconds=_mean(result.get("step_seconds") for result in kept),
        cell_seconds=_mean(_seconds(result) for result in kept),
        peak_bytes=_mean(result.get("peak_bytes") for result in kept),
        cells=len(kept),
        wanted=wanted,
        failed=sum("error" in result for result in kept),
        by_frame=np.mean(frames, axis=0) if frames else np.zeros(0),
    )


def _seconds(result):
    """Seconds of training, sampling and scoring, whichever cell had the training to do; None where it diverged."""
    if "error" in result:
        return None
    return result.get("train_seconds", 0.0) + result["sample_seconds"] + result["score_seconds"]


def _mean(numbers):
    numbers = [number for number in numbers if number is not None and np.isfinite(number)]
    return float(np.mean(numbers)) if numbers else float("nan")
