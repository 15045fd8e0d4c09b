"""The pairs of a study: videos of the same name in two arms' folders, with one prompt."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from rcv.video import iter_frames

MEDIA_TYPES = {".gif": "image/gif", ".mp4": "video/mp4", ".webm": "video/webm"}
"""What browsers show, by suffix."""
PROMPTS = "prompts.json"
LAYOUT = f"ARM/NAME.mp4, .webm or .gif, with prompts in {PROMPTS} ({{NAME: prompt}}) or NAME.txt"


class StudyError(ValueError):
    """A folder that no study can be made of. `problems` holds one sentence a problem."""

    def __init__(self, folder, problems):
        self.problems = tuple(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{folder}: no study can be made of this folder:\n{lines}")


@dataclass(frozen=True)
class Pair:
    """Two videos of one prompt, of the arms `arms`; `digests` of their content tell whether they were replaced."""

    name: str
    prompt: str
    arms: tuple[str, str]
    videos: tuple[Path, Path]
    digests: tuple[str, str]


def find_pairs(folder, prompts=None):
    """Return the pairs of a folder: of every name, each two arms; every video is decoded to its end once.

    Parameters
    ----------
    folder : path
        ARM/NAME.mp4 (.webm, .gif), the same names in every arm. A prompt stands in `prompts`, or in NAME.txt in
        `folder` or beside the videos.
    prompts : path, optional
        JSON file {NAME: prompt}; FOLDER/prompts.json if there is one.

    Returns
    -------
    (list of Pair, list of str)
        And a sentence for every pair that raters could tell apart without looking at the pictures: other sizes or
        numbers of frames.

    Raises
    ------
    StudyError
        Lists every video that is missing, unreadable, or there twice; every prompt that is missing or differs between
        arms; every pair of different formats.
    """
    folder = Path(folder).expanduser()
    arms, problems = _arms(folder)
    written = _read_prompts(folder, prompts)
    names = sorted({name for videos in arms.values() for name in videos})
    pairs, notes = [], []
    for name in names:
        prompt, trouble = _prompt(folder, name, arms, written)
        seen = {}
        for arm, videos in arms.items():
            if name not in videos:
                trouble.append(f"{arm}: no video {name!r}, which other arms have")
            else:
                seen[arm] = _look_at(videos[name], trouble)
        if len({videos[name].suffix.lower() for videos in arms.values() if name in videos}) > 1:
            trouble.append(f"{name}: its formats differ between the arms, which would tell them apart")
        problems += trouble
        if trouble:
            continue
        for first, second in itertools.combinations(sorted(arms), 2):
            videos, looks = zip(*((arms[arm][name], seen[arm]) for arm in (first, second)), strict=True)
            if looks[0][1:] != looks[1][1:]:
                described = " and ".join(f"{frames} frames of {h}x{w}" for _, frames, (h, w) in looks)
                notes.append(f"{name}: {first} and {second} have {described}: raters could tell them apart")
            pairs.append(Pair(name, prompt, (first, second), videos, tuple(look[0] for look in looks)))
    if problems:
        raise StudyError(folder, problems)
    return pairs, notes


def _arms(folder):
    """Return {arm: {name: path}} and the problems of names that stand for two files of one arm."""
    if not folder.is_dir():
        raise StudyError(folder, [f"no such folder; expected one of {LAYOUT}"])
    arms, problems = {}, []
    try:
        for arm in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
            videos = {}
            for path in sorted(arm.iterdir()):
                if path.suffix.lower() not in MEDIA_TYPES or path.name[0] == ".":
                    continue
                if path.stem in videos:
                    problems.append(f"{arm.name}: {videos[path.stem].name} and {path.name} share a name")
                videos[path.stem] = path
            if videos:
                arms[arm.name] = videos
    except OSError as error:
        raise StudyError(folder, [f"{error.filename} cannot be read ({error.strerror})"]) from error
    if len(arms) < 2:
        found = f"only {next(iter(arms))}" if arms else "none"
        raise StudyError(folder, [f"two folders of videos or more are needed, found {found}: {LAYOUT}"])
    return arms, problems


def _read_prompts(folder, prompts):
    file = folder / PROMPTS if prompts is None else Path(prompts).expanduser()
    if prompts is None and not file.exists():
        return {}
    try:
        written = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise StudyError(folder, [f"{file}: cannot be read as JSON ({error})"]) from error
    if not isinstance(written, dict) or not all(isinstance(prompt, str) for prompt in written.values()):
        raise StudyError(folder, [f"{file}: expected {{NAME: prompt}}, both of them text"])
    return written


def _prompt(folder, name, arms, written):
    """Return the one prompt of a name (None without one) and the problems with it."""
    files = [folder / f"{name}.txt", *(folder / arm / f"{name}.txt" for arm in arms)]
    said, problems = {}, []
    if name in written:
        said[PROMPTS] = written[name]
    for file in files:
        if file.is_file():
            try:
                said[str(file.relative_to(folder))] = file.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{file.relative_to(folder)}: cannot be read as UTF-8 text ({error})")
    said = {place: " ".join(prompt.split()) for place, prompt in said.items()}
    different = sorted(set(said.values()))
    if len(different) > 1:
        listed = ", ".join(f"{prompt!r} in {place}" for place, prompt in said.items())
        problems.append(f"{name}: the prompts differ: {listed}")
    elif not problems and not any(different):
        problems.append(f"{name}: no prompt; write it into {name}.txt or {PROMPTS}")
    return (different[0] if different else None), problems


def _look_at(path, problems):
    """Return (digest, frames, (height, width)) of a video, decoded to its end; None and a problem if it cannot be."""
    place = f"{path.parent.name}/{path.name}"
    frames, size = 0, None
    try:
        for frame in iter_frames(path):
            frames, size = frames + 1, frame.shape[:2]
        return hashlib.sha256(path.read_bytes()).hexdigest(), frames, size
    except Exception as error:  # whatever a decoder throws at a hostile file is that file's problem
        problems.append(f"{place}: {str(error).removeprefix(f'{path}: ') or type(error).__name__}")
        return None
