"""Metrics of a run's sample videos."""

import csv
import math
from pathlib import Path

FILE = "metrics.csv"
EMBEDDED_CLIP = "embedded"


class SampleMetrics:
    """`rcv.evaluation.video_scores` of sample videos, kept beside them as metrics.csv.

    Parameters
    ----------
    settings : FinetuneConfig
        Its `sample_clip` names the CLIP model.
    device : torch.device
        Where that runs.
    """

    def __init__(self, settings, device):
        from rcv.evaluation.clip import load_clip

        named = settings.sample_clip
        self.clip = load_clip(None if named == EMBEDDED_CLIP else Path(named).expanduser(), device)

    def measure(self, videos):
        """Write the metrics of the SampleVideos of one step; returns {metric: mean of the videos that have it}."""
        from rcv.evaluation.scores import METRICS, video_scores

        rows = [video_scores(video.frames, video.prompt, self.clip) for video in videos]
        with open(videos[0].path.parent / FILE, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt", *METRICS])
            for video, row in zip(videos, rows, strict=True):
                writer.writerow([video.prompt, *(row[name] for name in METRICS)])
        means = {}
        for name in METRICS:
            finite = [row[name] for row in rows if math.isfinite(row[name])]
            if finite:
                means[name] = sum(finite) / len(finite)
        return means
