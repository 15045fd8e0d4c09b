"""Folders of clips: video files, GIFs and folders of frames with captions beside them; DAVIS's layout."""

from rcv.data.captions import caption_name, read_caption
from rcv.data.entries import ClipsError, Entry
from rcv.data.tables import TABLE_SUFFIXES
from rcv.video.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".ogv", ".3gp", ".mjpeg", ".y4m"),
)
EXPECTED = "video files, GIFs or folders of frames, each with its caption beside it in NAME.txt"
DAVIS_FRAMES = "JPEGImages"
DAVIS_RESOLUTION = "480p"


def folder_entries(folder):
    """Return the Entries of a folder's clips in the order of their names.

    Hidden files and files that are neither clips nor captions are left alone. A folder that holds JPEGImages is read
    as DAVIS's: clips are the folders of frames in JPEGImages/480p (in another resolution if there is no 480p, in
    JPEGImages itself if there is none at all), captions stand beside them, or in FOLDER/captions, or in FOLDER.

    Raises
    ------
    ClipsError
        The folder cannot be read or holds no clip.
    """
    try:
        home = _davis_clips(folder) if (folder / DAVIS_FRAMES).is_dir() else folder
        captions = [home] if home == folder else [home, folder / "captions", folder]
        listed = sorted(entry for entry in home.iterdir() if not entry.name.startswith("."))
        paths = [path for path in listed if _is_clip(path, captions)]
    except OSError as error:
        raise ClipsError(folder, [f"the folder cannot be read ({error.strerror})"]) from error
    if not paths:
        raise ClipsError(folder, [_nothing_found(listed)])
    sharing = {}
    for path in paths:
        sharing.setdefault(caption_name(path).lower(), []).append(path.name)
    return [_entry(path, captions, sharing[caption_name(path).lower()]) for path in paths]


def _entry(path, captions, sharing):
    caption, problems = read_caption(path, _caption_file(path, captions))
    if len(sharing) > 1:
        problems.append(
            f"{' and '.join(sharing)}: same name, so they would share one caption; rename all but one"
        )
    return Entry(path.name, path, caption, problems=tuple(problems))


def _davis_clips(folder):
    frames = folder / DAVIS_FRAMES
    if (frames / DAVIS_RESOLUTION).is_dir():
        return frames / DAVIS_RESOLUTION
    inside = sorted(path for path in frames.iterdir() if path.is_dir() and not path.name.startswith("."))
    if inside and not _has_images(inside[0]):
        return inside[0]
    return frames


def _caption_file(path, folders):
    """Where the caption stands: the first of `folders` that has it."""
    files = [folder / caption_name(path) for folder in folders]
    return next((file for file in files if file.exists()), files[0])


def _is_clip(path, captions):
    if path.suffix.lower() == ".txt" or (path.suffix.lower() in TABLE_SUFFIXES and path.is_file()):
        return False
    if path.is_dir():
        return _has_images(path) or _caption_file(path, captions).exists()
    return path.suffix.lower() in VIDEO_SUFFIXES or _caption_file(path, captions).exists()


def _has_images(folder):
    try:
        return any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.iterdir())
    except PermissionError:
        return True  # so that it is listed, with this problem


def _nothing_found(listed):
    tables = [path.name for path in listed if path.suffix.lower() in TABLE_SUFFIXES]
    if tables:
        return f"no clip: the folder holds {tables[0]}; give that file itself"
    others = ", ".join(path.name for path in listed[:5])
    found = f"only {others}{', ...' if len(listed) > 5 else ''}" if listed else "nothing"
    return f"no clip: the folder holds {found}; expected {EXPECTED}"
