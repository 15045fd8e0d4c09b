"""Clips for runs of the app's tests."""

from tests.training.clip_files import write_clip


def write_clips(folder, count):
    """Write clips of 7 frames, 32 by 40 pixels; returns the folder."""
    for seed in range(count):
        write_clip(folder, f"{seed}.mp4", frames=7, size=(32, 40), seed=seed, caption=f"square {seed}")
    return folder
