"""Which videos to evaluate, and the prompt of each: files, arrays, folders of frames, folders of videos."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from rcv.data.captions import caption_name
from rcv.data.folders import VIDEO_SUFFIXES
from rcv.video import frames_as_uint8, read_video
from rcv.video.images import IMAGE_SUFFIXES, numeric_key

ARRAY_SUFFIXES = (".npy", ".npz")
NAME_COLUMNS = ("video", "name", "file", "file_name", "path")
PROMPT_COLUMNS = ("prompt", "caption", "text")


@dataclass(frozen=True)
class VideoFile:
    """A video to evaluate and its prompt, or None with the reason."""

    path: Path
    prompt: str | None = None
    no_prompt: str = "no prompt"


def find_videos(paths):
    """Return the paths of the videos that `paths` name, in the order given, a folder's in numeric order of their names.

    Parameters
    ----------
    paths : sequence of path
        Each a video file, a GIF, an array (.npy, .npz), a folder of frames, or a folder of any of these.

    Raises
    ------
    FileNotFoundError
        Nothing at a path.
    ValueError
        A folder without videos; one that holds videos and frames.
    """
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        found += _in_folder(path) if path.is_dir() else [path]
    return found


def read_frames(path):
    """Return the frames of a video file, a folder of frames or an array: uint8 [F,H,W,3].

    Raises
    ------
    ValueError
        Not a video (VideoError); an array of another form, with NaN or infinite values, or, of several in an .npz,
        none called "frames".
    OSError
        The file cannot be read.
    """
    if path.suffix.lower() not in ARRAY_SUFFIXES or path.is_dir():
        return read_video(path).frames
    try:
        array = np.load(path, allow_pickle=False)
        names = getattr(array, "files", None)
        if names is not None and ("frames" in names or len(names) == 1):
            array = array["frames" if "frames" in names else names[0]]
    except (ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path}: cannot be read as an array ({error})") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(
            f"{path}: holds {', '.join(names) or 'nothing'}; expected one array, or 'frames' among them"
        )
    return frames_as_uint8(array)


def with_prompts(paths, prompts=None):
    """Return a VideoFile for each path, and the problems with the prompts as a whole.

    Parameters
    ----------
    paths : sequence of pathlib.Path
    prompts : str or path, optional
        A .json ({name: prompt}, or a list of objects), .jsonl or .csv file with the columns `video` and `prompt` (or
        `name`, `file`, `path`; `caption`, `text`); a .txt file with one prompt for all; or the prompt itself. A name
        is the video's file name, with or without its suffix. None: NAME.txt beside each video.

    Raises
    ------
    ValueError
        A table that cannot be read, or that names one video twice.
    FileNotFoundError
        A table is named that is not there.
    """
    if prompts is None:
        return [_beside(path) for path in paths], []
    table = Path(prompts)
    suffix = table.suffix.lower()
    if suffix == ".txt" and table.is_file():
        prompt = " ".join(_text(table).split())
        return [VideoFile(path, prompt or None, f"{table} is empty") for path in paths], []
    if suffix not in (".json", ".jsonl", ".csv"):
        prompt = " ".join(str(prompts).split())
        return [VideoFile(path, prompt or None, "the prompt is empty") for path in paths], []
    if not table.is_file():
        raise FileNotFoundError(f"{table}: no such file of prompts")
    named = _read_table(table)
    files, used = [], set()
    for path in paths:
        keys = [key for key in (path.name, path.stem) if key in named]
        used |= {*keys}
        files.append(VideoFile(path, named[keys[0]] if keys else None, f"{table} names no {path.name}"))
    return files, [f"{table} names {name}, which is not there" for name in named if name not in used]


def _in_folder(folder):
    entries = sorted(
        (entry for entry in folder.iterdir() if not entry.name.startswith(".")),
        key=lambda entry: numeric_key(entry.name),
    )
    frames = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
    videos = [
        entry
        for entry in entries
        if (entry.is_dir() and any(file.suffix.lower() in IMAGE_SUFFIXES for file in entry.iterdir()))
        or (entry.is_file() and entry.suffix.lower() in (*VIDEO_SUFFIXES, *ARRAY_SUFFIXES))
    ]
    if frames and videos:
        raise ValueError(
            f"{folder}: holds both frames ({frames[0].name}) and videos ({videos[0].name}); expected either"
        )
    if frames:
        return [folder]
    if not videos:
        raise ValueError(f"{folder}: holds no video; expected video files, arrays, or folders of frames")
    return videos


def _beside(path):
    file = path.with_name(caption_name(path))
    try:
        prompt = " ".join(_text(file).split())
    except FileNotFoundError:
        return VideoFile(path, None, f"no {file.name} beside it, and no --prompts")
    except ValueError as error:
        return VideoFile(path, None, str(error))
    return VideoFile(path, prompt or None, f"{file.name} is empty")


def _text(path):
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start})") from None


def _read_table(path):
    """Return {name: prompt} of a .json, .jsonl or .csv file."""
    text = _text(path)
    try:
        if path.suffix.lower() == ".csv":
            rows = list(csv.DictReader(text.splitlines()))
        elif path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = json.loads(text)
    except (json.JSONDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if isinstance(rows, dict):
        rows = [{"video": name, "prompt": prompt} for name, prompt in rows.items()]
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path} holds no prompts; expected rows with the columns video and prompt")
    named = {}
    for number, row in enumerate(rows, 1):
        name, prompt = (
            next((row[c] for c in columns if c in row), None) if isinstance(row, dict) else None
            for columns in (NAME_COLUMNS, PROMPT_COLUMNS)
        )
        if not isinstance(name, str) or not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"{path}, row {number}: expected a video and a prompt, got {row!r}")
        name = Path(name).name
        if name in named:
            raise ValueError(f"{path} names {name} twice")
        named[name] = " ".join(prompt.split())
    return named
