"""Captions that stand beside their clips."""

from pathlib import Path


def caption_name(path):
    """Return the name of the caption file of a clip: NAME.txt, with the whole name of a folder of frames."""
    return (path.name if path.is_dir() else path.stem) + ".txt"


def read_caption(path, file=None):
    """Return the caption of a clip, white space collapsed, and the problems with it.

    Parameters
    ----------
    path : Path
        The clip.
    file : Path, optional
        Its caption file; NAME.txt beside it if left out.
    """
    file = Path(file) if file is not None else path.with_name(caption_name(path))
    try:
        if file.exists() and not file.is_file():  # reading a pipe would wait for ever
            return None, [f"{file.name}: not a file; expected the caption of {path.name}"]
        caption = " ".join(file.read_text(encoding="utf-8-sig").split())
    except FileNotFoundError:
        return None, [f"{path.name}: no caption; write what it shows into {file.name}"]
    except UnicodeDecodeError as error:
        return None, [f"{file.name}: not UTF-8 (byte {error.start}); save the caption as UTF-8 text"]
    except OSError as error:
        return None, [f"{file.name}: cannot be read ({error.strerror})"]
    if "\0" in caption:
        return None, [f"{file.name}: holds NUL characters (UTF-16?); save the caption as UTF-8 text"]
    return caption, [] if caption else [f"{file.name}: the caption is empty; write what {path.name} shows"]
