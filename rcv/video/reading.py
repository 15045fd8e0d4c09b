"""Reading video files, GIFs and folders of frames, a frame at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from .images import FOLDER_FPS, ImageFolder, VideoError

# FFmpeg guesses a demuxer for almost anything: it renders text files as terminal art.
NOT_VIDEO_DEMUXERS = frozenset(
    {
        *("tty", "bin", "xbin", "adf", "idf", "subviewer", "srt", "webvtt", "ass"),
        *("concat", "hls", "dash", "sdp", "imf"),  # lists of other files
    }
)


@dataclass(frozen=True)
class VideoInfo:
    """What `probe` finds: displayed size (rotation applied), frames a second and the number of frames."""

    path: Path
    width: int
    height: int
    fps: float
    frames: int


@dataclass(frozen=True)
class Video:
    """Decoded frames, uint8 [F,H,W,3] in RGB, and the frame rate of the file they came from."""

    frames: np.ndarray
    fps: float


def read_video(path: str | Path, indices: Sequence[int] | None = None) -> Video:
    """Frames of a video file, a GIF or a folder of images.

    Parameters
    ----------
    path
        A file that PyAV decodes (mp4, mkv, webm, gif, avi, ...), or a folder of images, taken in numeric order.
    indices
        The frames wanted, counted from 0, in any order and with repeats. Decoding is sequential and stops after
        the largest; frames not named are dropped as they pass. None reads all of them.

    Returns
    -------
    Video
        `frames` uint8 [len(indices), H, W, 3].

    Raises
    ------
    FileNotFoundError
        Nothing at `path`.
    VideoError
        Empty, damaged or cut off before the last frame asked for (the message tells how many could be read), not
        a video, without a picture track, or with fewer frames than asked for.
    """
    path = Path(path)
    if indices is None:
        frames, fps = _collect(path, None)
        return Video(np.stack(frames), fps)
    wanted = [int(i) for i in indices]
    if not wanted or min(wanted) < 0:
        raise ValueError(f"indices must name at least one frame, counted from 0; got {wanted}")
    by_index, fps = _collect(path, frozenset(wanted))
    return Video(np.stack([by_index[i] for i in wanted]), fps)


def _collect(path: Path, wanted: frozenset[int] | None):
    """All frames as a list (wanted None) or those wanted as a dict, and the frame rate."""
    reader = ImageFolder(path) if _existing(path).is_dir() else _File(path)
    with reader:
        if wanted is None:
            frames = [picture() for _, _, picture in reader]
            _same_size(path, frames)
            return frames, reader.fps
        found = {index: picture() for index, _, picture in _wanted(path, reader, wanted)}
        _same_size(path, list(found.values()))
        return found, reader.fps


def _wanted(path: Path, reader: ImageFolder | _File, wanted: Collection[int]):
    """What `reader` gives for the frames wanted, in its order; VideoError if it ends before the last of them."""
    last, read = max(wanted), 0
    for index, seconds, picture in reader:
        read = index + 1
        if index in wanted:
            yield index, seconds, picture
        if index == last:
            return
    raise VideoError(f"{path}: frame {last} was asked for, but the video has {read} frames")


def iter_frames(path: str | Path, indices: Collection[int] | None = None) -> Iterator[np.ndarray]:
    """Frames of a video one after the other, each uint8 [H,W,3]; one frame in memory. Errors as `read_video`.

    With `indices` only the frames in it, in the order of the video, which is decoded up to the last of them.
    """
    path = Path(path)
    with ImageFolder(path) if _existing(path).is_dir() else _File(path) as reader:
        for _, _, picture in reader if indices is None else _wanted(path, reader, frozenset(indices)):
            yield picture()


def iter_timed_frames(path: str | Path) -> Iterator[tuple[float, np.ndarray]]:
    """As `iter_frames`, each frame with the time from which it is shown, in seconds; a folder's by FOLDER_FPS."""
    path = Path(path)
    with ImageFolder(path) if _existing(path).is_dir() else _File(path) as reader:
        for _, seconds, picture in reader:
            yield seconds, picture()


def probe(path: str | Path) -> VideoInfo:
    """Size, frame rate and number of frames, decoding one frame only.

    A container that does not state its number of frames (mkv, webm, gif) is counted by reading its packets
    through. Errors as `read_video`; a container that is cut off is reported with the number of frames in it.
    """
    path = Path(path)
    if _existing(path).is_dir():
        with ImageFolder(path) as folder:
            height, width = folder.read(folder.files[0]).shape[:2]
            return VideoInfo(path, width, height, folder.fps, len(folder.files))
    with _File(path) as file:
        _, _, picture = next(iter(file))
        height, width = picture().shape[:2]
        fps = file.fps
    with _File(path) as file:
        return VideoInfo(path, width, height, fps, file.count())


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    return path


def _same_size(path: Path, frames: list[np.ndarray]) -> None:
    sizes = sorted({frame.shape[:2] for frame in frames})
    if len(sizes) > 1:
        raise VideoError(f"{path}: its frames differ in size, (height, width) in {sizes}; expected one size")


class _File:
    """Frames of a container in order, as (index, seconds, function that converts the picture to RGB)."""

    def __init__(self, path: Path):
        self.path = path
        self.bytes = path.stat().st_size
        if self.bytes == 0:
            raise VideoError(f"{path}: empty file")
        try:
            # "file:" keeps FFmpeg from reading a protocol into names that hold a colon
            # and a list of other files, whatever its name, must not reach into the network
            self.container = av.open(
                f"file:{path}", metadata_errors="ignore", options={"protocol_whitelist": "file"}
            )
        except (av.FFmpegError, OSError) as error:
            if isinstance(error, PermissionError) or not path.exists():
                raise
            raise VideoError(
                f"{path}: not a video, or cut off before its index: 0 frames could be read ({_reason(error)})"
            ) from error
        streams = self.container.streams.video
        name = self.container.format.name
        problem = None
        if name in NOT_VIDEO_DEMUXERS:
            problem = "not a video"
        elif not streams and self.container.streams.audio:
            problem = "it holds sound but no pictures; expected a video"
        elif not streams or streams[0].codec_context is None or not streams[0].codec_context.width:
            problem = "no pictures that this build of PyAV can decode"
        if problem:
            self.container.close()
            raise VideoError(f"{path}: {problem} (read as {name})")
        self.stream = streams[0]
        self.stream.thread_type = "AUTO"
        rate = _gif_rate(path) if name == "gif" else self.stream.average_rate or self.stream.guessed_rate
        self.fps = float(rate) if rate else FOLDER_FPS

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.container.close()

    def __iter__(self):
        index, end = 0, None
        try:
            for frame in self._decoded():
                seconds = index / self.fps
                if frame.pts is not None and frame.time_base:
                    seconds = float(frame.pts * frame.time_base)
                    end = float((frame.pts + (frame.duration or 0)) * frame.time_base)
                    end += 0 if frame.duration else 1 / self.fps
                yield index, seconds, lambda frame=frame: _upright(frame)
                index += 1
        except (av.FFmpegError, EOFError) as error:
            raise self._cut_off(index, _reason(error)) from error
        if index == 0:
            raise self._cut_off(0, "no frame decodes")
        self._check_complete(index, end)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Frames up to the end or the first damaged packet; what the decoder still holds comes before the error."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                if packet.is_corrupt:
                    raise EOFError("the next one is damaged")
            except (av.FFmpegError, EOFError):
                yield from self.stream.codec_context.decode(None)
                raise
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise EOFError("the next one is damaged")
                yield frame

    def count(self) -> int:
        """Number of frames: the container's statement if its index lies inside the file, else counted packets."""
        stated = self.stream.frames
        indexed = self.stream.index_entries
        if stated and indexed and all(entry.pos + entry.size <= self.bytes for entry in indexed):
            return stated
        count, end = 0, None
        try:
            for packet in self.container.demux(self.stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                if packet.is_corrupt:
                    raise EOFError("the next one is damaged")
                count += 1
                if packet.pts is not None:
                    shown = packet.duration * packet.time_base if packet.duration else 1 / self.fps
                    end = max(end or 0.0, float(packet.pts * packet.time_base + shown))
        except (av.FFmpegError, EOFError) as error:
            raise self._cut_off(count, _reason(error)) from error
        self._check_complete(count, end)
        return count

    def _check_complete(self, count: int, end: float | None) -> None:
        """Raises if the container promised clearly more than it held.

        `end` is when the last frame ends, in seconds. Headers are generous by a frame or two (edit lists, sound
        that outlasts the pictures): what counts as cut off is a twentieth missing, and three frames at least.
        """
        stated = self.stream.frames
        if stated and count < stated - max(2, stated // 20):
            raise self._cut_off(count, f"its header states {stated}")
        if self.container.format.name == "gif" and not self.path.read_bytes().rstrip(b"\0").endswith(b";"):
            raise self._cut_off(count, "the end mark of a GIF is missing")
        only_pictures = len(self.container.streams) == 1
        if not stated and end is not None and only_pictures and self.container.duration:
            promised = self.container.duration / av.time_base
            start = (self.container.start_time or 0) / av.time_base
            if self.container.format.name.startswith(
                "matroska"
            ):  # it states when it ends, not how long it lasts
                start = 0
            held = end - start
            if promised - held > max(2.5 / self.fps, 0.05 * promised):
                raise self._cut_off(count, f"its header states {promised:.2f} s, it ends at {held:.2f} s")

    def _cut_off(self, count: int, reason: str) -> VideoError:
        return VideoError(f"{self.path}: cut off or damaged: {count} frames could be read ({reason})")


def _gif_rate(path: Path) -> float | None:
    """Mean frame rate of a GIF, whose frames each carry a time of their own; FFmpeg's guess takes the smallest."""
    with av.open(f"file:{path}") as container:
        try:
            times = [p.duration * p.time_base for p in container.demux(video=0) if p.size and p.duration]
        except (av.FFmpegError, EOFError):
            return None
    return float(len(times) / sum(times)) if times and sum(times) else None


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """RGB picture, uint8 [H,W,3], turned as the file's display matrix says."""
    picture = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarter_turns)) if quarter_turns else picture


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
