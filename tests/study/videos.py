"""Folders of videos for studies."""

from rcv.video import write_video
from tests.training.clip_files import moving_square


def write_arms(folder, arms=("ours", "theirs"), names=("bear", "cat", "dog"), suffix=".gif", frames=4):
    """Write ARM/NAME of every arm and name, and the prompts as NAME.txt; returns the folder."""
    for number, name in enumerate(names):
        for shift, arm in enumerate(arms):
            write_video(folder / arm / f"{name}{suffix}", moving_square(frames, seed=10 * number + shift))
        (folder / f"{name}.txt").write_text(f"a {name} walking\n", encoding="utf-8")
    return folder
