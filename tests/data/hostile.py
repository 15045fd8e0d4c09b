"""Clips as they come: broken in every way that was thought of, and odd but sound."""

import os
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from tests.training.clip_files import moving_square, write_clip

FRAMES = 8
SIZE = (32, 40)


def encode(path, codec="ffv1", pixels="yuv420p", frames=None, times=None, rotation=0, sound=False, **options):
    """Encode a moving square by PyAV, for what `write_video` does not write; `times` in milliseconds."""
    frames = moving_square(FRAMES, SIZE) if frames is None else frames
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        hearing = container.add_stream("aac", rate=8000) if sound else None
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
                format=pixels
            )
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if hearing:
            _add_sound(container, hearing)


def _add_sound(container, stream, seconds=1):
    samples = np.zeros((1, 1024), np.float32)
    for number in range(8 * seconds):
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, number * 1024
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_broken(folder):
    """Write clips that cannot be trained on; returns {name that the problem begins with: what it says}."""
    whole = write_clip(folder / "aside", "whole.mp4", frames=40, size=(64, 64)).read_bytes()
    lossless = write_clip(folder / "aside", "whole.mkv", frames=40, size=(64, 64), lossless=True).read_bytes()
    gif = write_clip(folder / "aside", "whole.gif", frames=FRAMES, size=SIZE).read_bytes()
    middle = len(lossless) // 2
    contents = {
        "zero.mp4": (b"", "empty file"),
        "words.mp4": (b"this is no video\n" * 50, "not a video"),
        "noise.mkv": (np.random.default_rng(0).bytes(5000), "not a video"),
        "nulls.avi": (bytes(5000), "not a video"),
        "page.webm": (b"<!DOCTYPE html><html><body>Please sign in</body></html>" * 20, "not a video"),
        "archive.mov": (b"PK\x03\x04" + bytes(500), "not a video"),
        "subtitles.mp4": (b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n" * 9, "not a video"),
        "playlist.mp4": (b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nodd.mp4\n#EXT-X-ENDLIST\n", "not a video"),
        "list.mp4": (b"ffconcat version 1.0\nfile odd.mp4\n", "not a video"),
        "header.mp4": (whole[:40], "not a video, or cut off"),
        "half.mp4": (whole[: len(whole) // 2], "cut off"),
        "tail.mp4": (whole[:-2000], "cut off"),
        "middle.mkv": (lossless[:middle] + bytes(4000) + lossless[middle + 4000 :], "frames could be read"),
        "cut.gif": (gif[: len(gif) // 2], "cut off"),
    }  # fmt: skip
    expected = {name: said for name, (_, said) in contents.items()}
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
        (folder / name).with_suffix(".txt").write_text(f"caption of {name}")
    expected |= (
        _broken_pictures(folder) | _broken_captions(folder) | _broken_paths(folder) | _broken_folders(folder)
    )
    for file in (folder / "aside").iterdir():
        file.unlink()
    (folder / "aside").rmdir()
    return expected


def _broken_pictures(folder):
    write_clip(folder, "short.mp4", frames=2, size=SIZE)
    write_clip(folder, "pixel.mkv", frames=FRAMES, size=(1, 1), lossless=True)
    write_clip(folder, "strip.mkv", frames=FRAMES, size=(8, 1000), lossless=True)
    Image.fromarray(moving_square(1, SIZE)[0]).save(folder / "still.mp4", format="JPEG")
    with av.open(str(folder / "sound.mkv"), "w") as container:
        _add_sound(container, container.add_stream("aac", rate=8000))
    for name in ("still", "sound"):
        (folder / f"{name}.txt").write_text(name)
    return {
        "short.mp4": "2 frames, fewer than the 4",
        "pixel.mkv": "1x1 pixels would be enlarged 32 times",
        "strip.mkv": "would show",
        "still.mp4": "1 frames, fewer than the 4",
        "sound.mkv": "sound but no pictures",
    }


def _broken_captions(folder):
    for name in ("uncaptioned", "blank", "latin", "utf16", "nuls", "shelf", "pipe"):
        write_clip(folder, f"{name}.mp4", frames=FRAMES, size=SIZE, caption=None)
    (folder / "blank.txt").write_text(" \n\t")
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "utf16.txt").write_bytes("a caption".encode("utf-16"))
    (folder / "nuls.txt").write_bytes("a caption".encode("utf-16-le"))
    (folder / "shelf.txt").mkdir()
    os.mkfifo(folder / "pipe.txt")
    write_clip(folder, "twin.mp4", frames=FRAMES, size=SIZE)
    write_clip(folder, "twin.gif", frames=FRAMES, size=SIZE)
    return {
        "uncaptioned.mp4": "no caption",
        "blank.txt": "caption is empty",
        "latin.txt": "not UTF-8",
        "utf16.txt": "not UTF-8",
        "nuls.txt": "NUL characters",
        "shelf.txt": "not a file",
        "pipe.txt": "not a file",
        "twin.gif and twin.mp4": "same name",
    }


def _broken_paths(folder):
    os.symlink(folder / "gone.mp4", folder / "link.mp4")
    os.symlink("itself.mp4", folder / "itself.mp4")
    os.symlink(".", folder / "loop")
    os.mkfifo(folder / "fifo.mp4")
    os.symlink("/dev/zero", folder / "device.mp4")
    for name in ("link", "itself", "loop", "fifo", "device"):
        (folder / f"{name}.txt").write_text(name)
    return {
        "link.mp4": "broken link",
        "itself.mp4": "broken link",
        "loop": "a folder without images",
        "fifo.mp4": "neither a file nor a folder",
        "device.mp4": "neither a file nor a folder",
    }


def _broken_folders(folder):
    (folder / "empty").mkdir()
    (folder / "empty.txt").write_text("nothing")
    names = ("mixed", "torn", "said", "waiting", "dangling")
    for name in names:
        write_clip(folder, name, frames=FRAMES, size=SIZE)
    third = {name: folder / name / "frame_00003.png" for name in names}
    Image.new("RGB", (20, 20)).save(third["mixed"])
    third["torn"].write_bytes(third["torn"].read_bytes()[:100])
    third["said"].write_text("a picture")
    for name in ("waiting", "dangling"):
        third[name].unlink()
    os.mkfifo(third["waiting"])
    os.symlink("gone.png", third["dangling"])
    return {
        "empty": "a folder without images",
        "mixed": "frame 3 is (20, 20)",
        "torn": "frame_00003.png: cannot be read as an image",
        "said": "frame_00003.png: cannot be read as an image",
        "waiting": "frame_00003.png: not a file",
        "dangling": "frame_00003.png: not a file",
    }


def write_odd(folder):
    """Write clips that are odd but sound; returns their names."""
    encode(folder / "ten bits.mkv", pixels="yuv420p10le")
    encode(folder / "gray.mkv", pixels="gray")
    encode(folder / "full chroma.mkv", pixels="yuv444p")
    encode(folder / "variable.mkv", times=[0, 40, 400, 410, 900, 1300, 1310, 2000])
    encode(folder / "late.mkv", times=[50_000 + 125 * number for number in range(FRAMES)])
    encode(folder / "turned.mp4", codec="mpeg4", rotation=90)
    encode(folder / "with sound.mp4", codec="mpeg4", sound=True)
    encode(folder / "colon: 100%.mkv")
    encode(folder / "SHOUTED.MKV")
    encode(folder / "wrong suffix.mkv", codec="ffv1")
    (folder / "wrong suffix.mkv").rename(folder / "wrong suffix.mp4")
    encode(folder / "caf\xe9 \U0001f98a.mkv")
    write_clip(folder, "uneven.mkv", frames=FRAMES, size=(33, 47), lossless=True)
    write_clip(folder, "long.mkv", frames=FRAMES, size=SIZE, lossless=True, caption="very " * 5000 + "long")
    write_clip(folder, "marked.mkv", frames=FRAMES, size=SIZE, lossless=True)
    (folder / "marked.txt").write_bytes(b"\xef\xbb\xbfa caption\r\nof two lines\r\n")
    pictures = [Image.fromarray(frame) for frame in moving_square(FRAMES, SIZE)]
    palette = [picture.quantize(16) for picture in pictures]
    palette[0].save(folder / "palette.gif", save_all=True, append_images=palette[1:], duration=100)
    glass = [picture.convert("RGBA") for picture in pictures]
    for picture in glass:
        picture.putpixel((3, 3), (0, 0, 0, 0))
    glass[0].save(folder / "glass.gif", save_all=True, append_images=glass[1:], duration=0, disposal=2)
    for name, suffix, picture in (
        ("deep", ".png", Image.fromarray(moving_square(1, SIZE)[0, :, :, 0].astype(np.uint16) << 8)),
        ("cmyk", ".jpg", pictures[0].convert("CMYK")),
        ("see through", ".png", glass[0]),
        ("two-tone", ".png", pictures[0].convert("1")),
    ):
        (folder / name).mkdir()
        for number in range(FRAMES):
            picture.save(folder / name / f"{number}{suffix}")
    (folder / "deep" / "Thumbs.db").write_bytes(b"x")
    for path in list(folder.iterdir()):
        file = path.with_name((path.name if path.is_dir() else path.stem) + ".txt")
        if path.suffix != ".txt" and not file.exists():
            file.write_text(f"caption of {path.name}")
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".txt")
