"""All metrics of one video."""

from math import isnan

from rcv.evaluation.consistency import background_consistency, clip_score, clip_temp, flicker
from rcv.evaluation.flow import dis_flow
from rcv.evaluation.warping import evalcrafter_warping_error, homography_warping_error, measure_warping
from rcv.video import frames_as_uint8

METRICS = {
    "clip_score": "100 x cosine of frames and prompt; higher is better",
    "clip_temp": "100 x cosine of neighbouring frames; higher is better",
    "warping_error": "squared error per channel after warping by optical flow; lower is better",
    "motion": "mean flow, per cent of the shorter side a frame; right where it is that of true clips",
    "background_consistency": "likeness of frames to the one before and the first; higher is better",
    "flicker": "1 - mean change of pixels; higher is better",
    "warping_error_evalcrafter": "at half size, squares summed over channels",
    "warping_error_homography": "the paper's: ORB homography, 8-bit squares summed over channels",
    "covered": "share of pixels that the warping error is measured on",
}
"""What each key of `video_scores` means."""
_UNDEFINED = {
    "warping_error": "no pixel's flow can be followed",
    "warping_error_evalcrafter": "no pixel's flow can be followed at half the size",
    "warping_error_homography": "no two neighbouring frames have a homography",
}


class VideoScores(dict):
    """{metric: value}; `reasons` says, by metric, why a value is NaN."""

    def __init__(self, values, reasons):
        super().__init__(values)
        self.reasons = reasons


def video_scores(frames, prompt, clip, flow=dis_flow):
    """Return the VideoScores of one video: a float for each of METRICS.

    Parameters
    ----------
    frames : array [F,H,W,3]
        uint8, or floats in [0, 1]; what `rcv.video.write_video` takes.
    prompt : str or None
        None leaves the score of faithfulness undefined.
    clip : ImageTextModel
        Of `rcv.evaluation.clip.load_clip`.
    flow : callable
        Estimates optical flow, as `measure_warping` takes it.

    Raises
    ------
    ValueError
        Frames of another form, NaN pixels, or a side of fewer than 12 pixels.
    """
    frames = frames_as_uint8(frames)
    values, reasons = dict.fromkeys(METRICS, float("nan")), {}
    images = clip.image_features(frames)
    if prompt is None:
        reasons["clip_score"] = "no prompt"
    else:
        values["clip_score"] = clip_score(images, clip.text_features([prompt])[0])
    if len(frames) < 2:
        reasons |= {name: "one frame only" for name in METRICS if name != "clip_score"}
        return VideoScores(values, reasons)
    warping = measure_warping(frames, flow)
    values |= {
        "clip_temp": clip_temp(images),
        "warping_error": warping.error,
        "motion": warping.motion,
        "background_consistency": background_consistency(images),
        "flicker": flicker(frames),
        "warping_error_evalcrafter": evalcrafter_warping_error(frames, flow),
        "warping_error_homography": homography_warping_error(frames),
        "covered": warping.covered,
    }
    reasons |= {name: reason for name, reason in _UNDEFINED.items() if isnan(values[name])}
    return VideoScores(values, reasons)
