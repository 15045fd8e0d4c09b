"""Motion truth: how far a video moves as its theme of the motion world does, and shows what its caption says.

No learning: the renderer knows the truth, so that the same measurements on rendered clips of the caption's subject say
what a perfect video reaches.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from rcv.evaluation.course import Course, course_of, course_score
from rcv.evaluation.place import place_of
from rcv.evaluation.rhythm import fall, fall_speeds, gait, reference_scenes
from rcv.world.render import FPS, render_clip
from rcv.world.rules import SIZE, foreground, judge
from rcv.world.scene import TABLE, parse_caption

IN_PLACE = ("sway", "still")
"""Motions whose subject stays: what moves is the water."""
PLACES_SEEN = 4
"""Frames whose place is judged, spread over the video."""
LEAST_SUBJECT = 0.01
"""Share of a picture below which nothing stands out."""


@dataclass(frozen=True)
class MotionTruth:
    """How true a video is to its caption's theme; everything but `speed` in [0,1], rendered clips near 1.

    Attributes
    ----------
    score : float
        content * movement. content is the mean of `subject` and `place`; movement the geometric mean of `course` and
        `rhythm`, or where the subject stays, and a course is but steadiness, their product. A still video scores 0,
        and so does one that moves backwards.
    subject : float
        Mean over frames of colour right and silhouette right, half each.
    place : float
        Share of the frames looked at whose background is the caption's.
    course : float
        Speed, direction, straightness and position of the subject's centre.
    rhythm : float
        Gait, wing beat, rotor or burst against the theme's cycle; fall of the water in the rain and in waterfalls.
    speed : float
        Frame widths a second to the right; nan where no subject is found or the theme's subject stays.
    subject_by_frame : tuple of float
        What `subject` is the mean of.
    """

    score: float
    subject: float
    place: float
    course: float
    rhythm: float
    speed: float
    subject_by_frame: tuple[float, ...]

    def numbers(self):
        """Return {name: float} of all but the frames' own."""
        return {name: value for name, value in asdict(self).items() if name != "subject_by_frame"}


def motion_truth(frames, caption, fps=FPS):
    """Measure the MotionTruth of a video.

    Parameters
    ----------
    frames : uint8 array [F,H,W,3]
        Two frames at least; seen at 64x64 pixels. Less than a second says little of a cycle.
    caption : str
        Of the motion world, as `rcv.world.parse_caption` reads it.
    fps : float
        Frames a second, which speeds and cycles are measured by.

    Raises
    ------
    ValueError
        For a caption of another world, pixels of another form, a single frame, or a rate that isn't positive.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"frames has dtype {frames.dtype} and shape {frames.shape}, expected uint8 [F,H,W,3]"
        )
    if len(frames) < 2:
        raise ValueError("frames holds one picture: motion needs two frames or more")
    if not fps > 0:
        raise ValueError(f"fps={fps}: it must be positive")
    told = parse_caption(caption)
    theme, subject = told["theme"], told["subject"]
    verdicts = [judge(frame, caption) for frame in frames]
    by_frame = tuple((verdict.color_ok + verdict.shape_ok) / 2 for verdict in verdicts)
    looked_at = np.unique(np.linspace(0, len(frames) - 1, PLACES_SEEN).round().astype(int))
    place = float(np.mean([place_of(frames[i], theme) == told["background"] for i in looked_at]))
    # how well drops are seen depends on the place; silhouettes are found before any
    before = told["background"] if TABLE[theme].motion in IN_PLACE else "meadow"
    reference = _reference(theme, subject, before, len(frames), float(fps))
    course = course_of([verdict.center for verdict in verdicts], theme, fps)
    rhythm = _rhythm(small(frames), theme, subject, told["background"], fps) / reference.rhythm
    parts = {
        "subject": float(np.mean(by_frame)),
        "place": place,
        "course": course_score(course, reference.course, theme),
        "rhythm": float(np.clip(rhythm, 0.0, 1.0)),
    }
    content = (parts["subject"] + parts["place"]) / 2
    movement = parts["course"] * parts["rhythm"]
    if TABLE[theme].motion not in IN_PLACE:
        movement **= 0.5
    travels = course is not None and TABLE[theme].motion == "travel"
    return MotionTruth(
        score=content * movement,
        **parts,
        speed=course.speed if travels else float("nan"),
        subject_by_frame=by_frame,
    )


def small(frames):
    """Return uint8 [F,64,64,3] of frames of any size, as the rules see them."""
    box = Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(frame).resize((SIZE, SIZE), box)) for frame in frames])


@dataclass(frozen=True)
class _Reference:
    course: Course
    rhythm: float


@lru_cache(maxsize=256)
def _reference(theme, subject, background, frames, fps):
    """What rendered clips of the subject reach, as long as the video: one clip for each cycle length."""
    courses, rhythms = [], []
    for scene in reference_scenes(theme, subject, background):
        clip = render_clip(scene, frames, SIZE, fps)
        found = [judge(frame, clip.caption).center for frame in clip.frames]
        courses.append(course_of(found, theme, fps))
        rhythms.append(_rhythm(clip.frames, theme, subject, background, fps))
    mean = tuple(float(v) for v in np.mean([course.mean for course in courses], axis=0))
    course = Course(
        float(np.mean([course.speed for course in courses])),
        max(course.wobble for course in courses),
        mean,
        1.0,
    )
    return _Reference(course, min(rhythms))


def _rhythm(frames, theme, subject, background, fps):
    if TABLE[theme].motion in IN_PLACE:
        return fall(frames, _falls(theme, subject, float(fps)))
    masks = np.stack([foreground(frame, theme, background) for frame in frames])
    if (masks.mean((1, 2)) < LEAST_SUBJECT).mean() > 0.5:
        return 0.0
    return gait(masks, theme, subject, fps)


_falls = lru_cache(maxsize=256)(fall_speeds)
