"""Writing videos: mp4 and other containers, GIF, a PNG sheet, a folder of PNG frames. Every write is atomic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from .atomic import replacing, replacing_folder
from .images import numeric_key

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}
BT709 = 1
LIMITED_RANGE = 1


def write_video(
    path: str | Path,
    frames: np.ndarray | Sequence | Iterator[np.ndarray],
    fps: float = 8.0,
    *,
    lossless: bool = False,
    columns: int | None = None,
    scale: int = 1,
) -> Path:
    """Write frames in the format that the path's suffix names, to a temporary file that then takes the path.

    Parameters
    ----------
    path
        `.mp4`, `.m4v`, `.mov`, `.mkv`, `.avi` (H.264, 4:2:0; odd sizes are padded by one repeated row or
        column), `.webm` (VP9), `.gif` (one palette for all frames, repeats for ever), `.png` (all frames on one
        sheet) or no suffix: a folder of `frame_00000.png`, ... Missing parent folders are made.
    frames
        One video: uint8 [F,H,W,3], floats [F,H,W,3] in [0,1], a torch tensor [F,3,H,W] in [0,1] (a
        pipeline's "pt" output), or a list of PIL images. An iterator of frames, uint8 [H,W,3], is written as they come:
        a container or a folder never holds more than one; a GIF, whose palette is for all, and a sheet hold them all.
    fps
        Frames a second. A GIF rounds each frame's time to 1/100 s without drift.
    lossless
        FFV1 in `.mkv`: exactly these pixels come back from `read_video`.
    columns
        Columns of a `.png` sheet; as square as possible if None.
    scale
        Each pixel becomes a square of so many: tiny frames stay sharp where a player would blur them.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    ValueError
        Frames of a wrong shape, a suffix that is not known, `lossless` outside `.mkv`, a folder that holds
        other files.
    OSError
        The file cannot be written (full disk, no permission); names it, and leaves what stood there before.
    """
    path = check_target(path)
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be a positive number, got {fps}")
    if scale < 1 or scale != int(scale):
        raise ValueError(f"scale is {scale}, expected a whole number, 1 or more")
    suffix = path.suffix.lower()
    if lossless and suffix != ".mkv":
        raise ValueError(f"lossless=True writes FFV1 into .mkv; got {path.name}")
    if isinstance(frames, Iterator) and suffix not in (".gif", ".png"):
        pictures = _checked_pictures(frames, scale)
    else:
        pictures = frames_as_uint8(list(frames) if isinstance(frames, Iterator) else frames)
        pictures = pictures.repeat(scale, 1).repeat(scale, 2) if scale > 1 else pictures
    if suffix == "":
        _write_folder(path, pictures)
        return path
    with replacing(path) as part:
        if suffix == ".gif":
            _encode_gif(part, pictures, fps)
        elif suffix == ".png":
            Image.fromarray(sheet(pictures, columns)).save(part, format="PNG")
        else:
            _encode(part, pictures, fps, CONTAINERS[suffix], lossless)
    return path


def check_target(path: str | Path) -> Path:
    """`path` as a Path if `write_video` would take it: for asking before work is spent on frames.

    Raises
    ------
    ValueError
        A suffix that is not known, or a folder that holds other files than frames.
    OSError
        A folder stands where a file should, or the other way round.
    """
    path = Path(path)
    if path.suffix == "":
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(
                f"{path}: is a file; expected a folder of frames, or a name with a suffix"
            )
        names = sorted((p.name for p in path.iterdir()), key=numeric_key) if path.is_dir() else []
        for name in names:
            if not (name.startswith("frame_") and name.endswith(".png")):
                raise ValueError(
                    f"{path}: holds other files ({name}); expected no folder or one of frame_*.png"
                )
    elif path.suffix.lower() not in (*CONTAINERS, ".gif", ".png"):
        known = ", ".join([*CONTAINERS, ".gif", ".png"])
        raise ValueError(f"{path.name}: unknown suffix; expected {known}, or none for a folder of frames")
    elif path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; expected a file name")
    return path


def frames_as_uint8(frames: np.ndarray | Sequence) -> np.ndarray:
    """One video in any form that `write_video` accepts as uint8 [F,H,W,3]; floats are clipped to [0,1]."""
    if hasattr(frames, "detach"):
        frames = frames.detach().float().cpu().numpy() if frames.is_floating_point() else frames.cpu().numpy()
        if frames.ndim == 4:
            frames = frames.transpose(0, 2, 3, 1)
    elif not isinstance(frames, np.ndarray):
        frames = [np.asarray(f.convert("RGB") if isinstance(f, Image.Image) else f) for f in frames]
        if len({frame.shape for frame in frames}) > 1:
            raise ValueError(f"frames must have one size, got {sorted({frame.shape for frame in frames})}")
        frames = np.stack(frames) if frames else np.zeros((0,))
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(
            f"frames has shape {tuple(frames.shape)}; expected one video, [F,H,W,3] (a torch tensor: [F,3,H,W]) "
            "with at least one frame"
        )
    if frames.dtype == np.uint8:
        return frames
    if not np.issubdtype(frames.dtype, np.floating):
        raise ValueError(f"frames has dtype {frames.dtype}; expected uint8, or floats in [0,1]")
    if not np.isfinite(frames).all():
        raise ValueError("frames hold NaN or infinite values; expected floats in [0,1]")
    return np.rint(frames.clip(0, 1) * 255).astype(np.uint8)


def _checked_pictures(frames: Iterator[np.ndarray], scale: int) -> Iterator[np.ndarray]:
    """The frames of an iterator, enlarged, each checked to be uint8 [H,W,3] and as large as the first."""
    shape = None
    for number, picture in enumerate(frames):
        shape = shape or picture.shape
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.shape != shape:
            raise ValueError(
                f"frame {number} is {picture.dtype} {list(picture.shape)}, expected uint8 [H,W,3]"
                + (f", {list(shape)} as the first" if number else "")
            )
        yield picture.repeat(scale, 0).repeat(scale, 1)
    if shape is None:
        raise ValueError("the iterator of frames gave none; expected at least one")


def sheet(frames: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Frames uint8 [F,H,W,3] side by side, row after row, on white: uint8 [rows*H, columns*W, 3]."""
    count, height, width, _ = frames.shape
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    rows = math.ceil(count / columns)
    page = np.full((rows * columns, height, width, 3), 255, np.uint8)
    page[:count] = frames
    page = page.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return page.reshape(rows * height, columns * width, 3)


def _encode(
    part: Path, frames: Iterable[np.ndarray], fps: float, container_format: str, lossless: bool
) -> None:
    rate = Fraction(fps).limit_denominator(1001)
    if lossless:
        codec, pixels, options = "ffv1", "bgr0", {}
    else:
        codec, options = _lossy_codec(container_format)
        pixels = "yuv420p"
        frames = (np.pad(f, ((0, f.shape[0] % 2), (0, f.shape[1] % 2), (0, 0)), mode="edge") for f in frames)
    frames = iter(frames)
    first = next(frames)
    # through a Python file, whose errors PyAV passes on; FFmpeg's own file layer may drop one at the end
    with open(part, "wb") as file, av.open(file, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = pixels
        if not lossless:
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED_RANGE
        for picture in itertools.chain([first], frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if not lossless:
                frame = frame.reformat(format=pixels, dst_colorspace=BT709, dst_color_range=LIMITED_RANGE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _lossy_codec(container_format: str) -> tuple[str, dict[str, str]]:
    if container_format == "webm":
        return "libvpx-vp9", {"crf": "24", "b": "0"}
    if "libx264" in av.codecs_available:
        return "libx264", {"crf": "16"}
    return "mpeg4", {"qscale": "2"}


def _encode_gif(part: Path, frames: np.ndarray, fps: float) -> None:
    """One palette for all frames, so that still areas do not flicker.

    Pillow finds the colours and dithers; FFmpeg writes the file, because Pillow merges equal neighbouring frames
    and with them changes the number of frames.
    """
    rgb, indexed = _exact_colours(frames) or _reduced_colours(frames)
    colours = np.zeros((256, 4), np.uint8)
    colours[:, 0], colours[: len(rgb), 1:] = 255, rgb
    options = {"loop": "0", "final_delay": str(max(1, round(100 / fps)))}
    with open(part, "wb") as file, av.open(file, "w", format="gif", options=options) as container:
        stream = container.add_stream("gif", rate=100)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "pal8"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 100)
        for index, picture in enumerate(indexed):
            frame = av.VideoFrame.from_ndarray((np.ascontiguousarray(picture), colours), format="pal8")
            frame.pts, frame.time_base = round(index * 100 / fps), Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _exact_colours(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Palette uint8 [n,3] and indices uint8 [F,H,W] of frames with up to 256 colours; None if they have more."""
    packed = frames.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours = np.unique(packed)
    if len(colours) > 256:
        return None
    rgb = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8)
    return rgb, np.searchsorted(colours, packed).astype(np.uint8)


def _reduced_colours(frames: np.ndarray) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Palette uint8 [n,3] of 256 colours at most, and the dithered indices uint8 [H,W] of each frame.

    Median cut alone leaves out rare colours (an eye, a spark) and is far off on gradients: two rounds of k-means
    after it lower the largest error of a block's mean from 36 to 8 levels on a two-colour ramp, 8 to 3 on film.
    """
    sample = frames[np.unique(np.linspace(0, len(frames) - 1, 16).round().astype(int))]
    pixels = Image.fromarray(sample.reshape(-1, *sample.shape[2:]))
    palette = pixels.quantize(256, Image.Quantize.MEDIANCUT, kmeans=2)
    dither = Image.Dither.FLOYDSTEINBERG
    indexed = (np.asarray(Image.fromarray(f).quantize(palette=palette, dither=dither)) for f in frames)
    return np.asarray(palette.getpalette("RGB"), np.uint8).reshape(-1, 3), indexed


def _write_folder(path: Path, frames: Iterable[np.ndarray]) -> None:
    """frame_00000.png, ... in a folder that takes the place of `path`."""
    with replacing_folder(path) as folder:
        for index, picture in enumerate(frames):
            Image.fromarray(picture).save(folder / f"frame_{index:05d}.png")
