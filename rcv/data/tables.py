"""Tables of clips: JSONL and CSV, WebVid's columns included."""

import csv
import dataclasses
import io
import json
import math
from collections import Counter
from pathlib import Path

from rcv.config import nearest
from rcv.data.entries import ClipsError, Entry

TABLE_SUFFIXES = (".csv", ".jsonl", ".ndjson")
VIDEO_COLUMNS = ("video", "file", "path", "videoid")
CAPTION_COLUMNS = ("caption", "text", "prompt", "name")
"""The first that a row has counts."""
MOST_REPEATS = 10_000


def table_entries(file):
    """Return the Entries of the rows of a JSONL or CSV file.

    A row names the clip (`video`, `file`, `path`; or WebVid's `videoid`, found as PAGE_DIR/VIDEOID.mp4, VIDEOID.mp4 or
    under videos/), its caption (`caption`, `text`, `prompt` or `name`), and if it likes the part of it that counts
    (`start` and `end`, seconds) and how often it is drawn an epoch (`repeats`). Paths are relative to the file's
    folder. Other columns are left alone.

    Raises
    ------
    ClipsError
        The file cannot be read, holds no row, or has no column for the clip at all.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ClipsError(file, [f"not UTF-8 (byte {error.start}); save the table as UTF-8 text"]) from None
    except OSError as error:
        raise ClipsError(file, [f"the table cannot be read ({error.strerror})"]) from error
    if not text.strip():
        raise ClipsError(file, ["the table holds no row"])
    rows = list(_csv_rows(file, text) if file.suffix.lower() == ".csv" else _json_rows(text))
    if not rows:
        raise ClipsError(file, ["the table holds no row"])
    entries, seen = [], {}
    for line, row, problem in rows:
        entry = _refused(line, problem) if problem else _entry(file.parent, line, row)
        what = (entry.path, entry.caption, entry.start, entry.end)
        if entry.path is not None and what in seen:
            entry = _refused(line, f"the same as line {seen[what]}; to draw it more often, set repeats")
        seen.setdefault(what, line)
        entries.append(entry)
    return _with_own_names(entries)


def _json_rows(text):
    """(line number, dict or None, problem or None) of every line that is not blank."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()  # a lone surrogate is JSON, but no text
        except (ValueError, RecursionError) as error:
            yield number, None, f"not JSON ({error})"
            continue
        if isinstance(row, dict):
            yield number, row, None
        else:
            yield (
                number,
                None,
                f'a JSON {type(row).__name__}, expected an object such as {{"video": ..., "caption": ...}}',
            )


def _csv_rows(file, text):
    """The same of every row of a CSV file, whose first row names the columns."""
    lines = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip() for name in next(lines, [])]
        if not set(header) & set(VIDEO_COLUMNS):
            raise ClipsError(file, [_no_column("clip", VIDEO_COLUMNS, header)])
        if not set(header) & set(CAPTION_COLUMNS):
            raise ClipsError(file, [_no_column("caption", CAPTION_COLUMNS, header)])
        for fields in lines:
            if not any(field.strip() for field in fields):
                continue
            if len(fields) != len(header):
                problem = f"{len(fields)} fields, the first row names {len(header)} (quote what holds commas)"
                yield lines.line_num, None, problem
            else:
                yield lines.line_num, dict(zip(header, fields, strict=True)), None
    except csv.Error as error:
        yield lines.line_num, None, f"not CSV ({error}); the rest is not read"


def _entry(folder, line, row):
    named = next((column for column in VIDEO_COLUMNS if _said(row, column)), None)
    if named is None:
        return _refused(line, _no_column("clip", VIDEO_COLUMNS, row))
    said, problems, path = str(row[named]).strip(), [], None
    candidates = _candidates(folder, row, said) if named == "videoid" else [folder / said]
    try:
        path = next((file for file in candidates if file.exists()), None)
    except (OSError, ValueError) as error:
        problems.append(f"the path cannot be looked for ({error})")
    if path is None and not problems:
        looked = " and ".join(str(file) for file in candidates[:2])
        problems.append(f"no such file: {looked}{' and others' if len(candidates) > 2 else ''}")
    caption = next((row[column] for column in CAPTION_COLUMNS if _said(row, column)), None)
    if isinstance(caption, str):
        caption = " ".join(caption.split())
    else:
        problems.append(
            _no_column("caption", CAPTION_COLUMNS, row)
            if caption is None
            else f"its caption is no text: {caption!r}"
        )
        caption = None
    start, end, repeats = (
        _number(row, "start", 0.0, problems),
        _number(row, "end", None, problems),
        _number(row, "repeats", 1, problems),
    )
    if end is not None and end <= start:
        problems.append(f"end is {end:g}, not after start, {start:g}")
    if repeats != int(repeats) or not 1 <= repeats <= MOST_REPEATS:
        problems.append(f"repeats is {repeats:g}, expected a whole number from 1 to {MOST_REPEATS}")
        repeats = 1
    name = (
        said
        if start == 0 and end is None
        else f"{said} [{start:g} s to {'its end' if end is None else f'{end:g} s'}]"
    )
    return Entry(
        name,
        path,
        caption,
        start,
        end,
        int(repeats),
        tuple(f"line {line}: {said}: {text}" for text in problems),
    )


def _said(row, column):
    """Whether a row has something in a column."""
    return row.get(column) is not None and str(row[column]).strip() != ""


def _candidates(folder, row, videoid):
    """Where WebVid's videos are looked for."""
    name = videoid if Path(videoid).suffix else f"{videoid}.mp4"
    page = str(row.get("page_dir") or "").strip()
    return [
        place / inner / name
        for inner in ([page] if page else []) + [""]
        for place in (folder, folder / "videos")
    ]


def _number(row, column, default, problems):
    """A number of 0 or more, or `default` where the row says nothing or something else."""
    if not _said(row, column):
        return default
    try:
        number = float(row[column])
        if not math.isfinite(number) or number < 0 or isinstance(row[column], bool):
            raise ValueError
    except (TypeError, ValueError):
        unit = "a whole number" if column == "repeats" else "seconds"
        problems.append(f"{column} is {row[column]!r}, expected {unit}")
        return default
    return number


def _no_column(what, expected, found):
    empty = next((name for name in expected if name in found), None)
    if empty is not None:
        return f"no {what}: {empty} is empty"
    known = [name for name in found if name]
    close = next((near for name in known if (near := nearest(name, expected))), "")
    columns = f"{', '.join(expected[:-1])} or {expected[-1]}"
    return f"no {what}: expected {columns}; it has {', '.join(known) or 'none'}{close}"


def _refused(line, problem):
    return Entry(f"line {line}", None, None, problems=(f"line {line}: {problem}",))


def _with_own_names(entries):
    """The same, names used several times told apart: one video may have several captions."""
    uses, numbers, result = Counter(entry.name for entry in entries), Counter(), []
    for entry in entries:
        if uses[entry.name] > 1:
            numbers[entry.name] += 1
            entry = dataclasses.replace(entry, name=f"{entry.name} ({numbers[entry.name]})")
        result.append(entry)
    return result
