"""Reading and writing video files: round trips, frame selection, damaged files, atomic writes."""

import os
import subprocess
import sys
import weakref
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from rcv.video import (
    VideoError,
    check_target,
    frames_as_uint8,
    iter_frames,
    iter_timed_frames,
    probe,
    read_video,
    write_video,
)

REAL = Path(__file__).resolve().parents[1].parent / "shared" / "videos"
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 64, 200), (90, 90, 90)]
LOSSY = [".mp4", ".mov", ".mkv", ".webm", ".avi"]


@pytest.fixture
def flat():
    """Seven frames of one colour each, 33x47: odd on both sides."""
    frames = np.zeros((len(COLOURS), 33, 47, 3), np.uint8)
    frames[:] = np.array(COLOURS, np.uint8)[:, None, None]
    return frames


@pytest.fixture
def blocks():
    """Forty frames of random blocks, 48x64, each different."""
    small = np.random.default_rng(0).integers(0, 256, (40, 12, 16, 3), dtype=np.uint8)
    return small.repeat(4, 1).repeat(4, 2)


def write_mp4(path, frames, options, rotation=None):
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 5
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", LOSSY)
def test_lossy_round_trip_keeps_colours_rate_and_count(tmp_path, flat, suffix):
    path = write_video(tmp_path / f"clip{suffix}", flat, fps=12.5)
    video = read_video(path)
    assert video.frames.dtype == np.uint8 and video.frames.shape == (7, 34, 48, 3)
    assert video.fps == 12.5
    assert np.abs(video.frames[:, :33, :47].astype(int) - flat).max() <= 4
    assert np.array_equal(video.frames[:, 33, :47], video.frames[:, 32, :47])  # padded by repeating


def test_lossless_is_exact_at_odd_sizes(tmp_path):
    frames = np.random.default_rng(1).integers(0, 256, (5, 33, 47, 3), dtype=np.uint8)
    video = read_video(write_video(tmp_path / "clip.mkv", frames, fps=29.97, lossless=True))
    assert np.array_equal(video.frames, frames)
    assert video.fps == pytest.approx(29.97, abs=1e-3)


@pytest.mark.parametrize("fps", [8, 12.5, 24])
def test_gif_keeps_every_frame_and_the_rate(tmp_path, flat, fps):
    frames = flat.repeat(2, axis=0)  # equal neighbours, which Pillow's own writer would merge
    path = write_video(tmp_path / "clip.gif", frames, fps=fps)
    video = read_video(path)
    assert np.array_equal(video.frames, frames)
    assert video.fps == pytest.approx(fps, rel=0.02)
    with Image.open(path) as image:
        assert image.n_frames == 14 and image.info["loop"] == 0
        assert image.info["duration"] == pytest.approx(1000 / fps, abs=10)


def test_gif_palette_is_good_on_a_gradient(tmp_path):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    frames = np.stack([np.stack([np.tile(ramp, (64, 1)), np.tile(ramp, (64, 1)).T, 0 * np.tile(ramp, (64, 1)) + s], -1)
                       for s in (40, 80, 120)])  # fmt: skip
    video = read_video(write_video(tmp_path / "clip.gif", frames, fps=8))
    assert np.abs(video.frames.astype(int) - frames).mean() < 12
    # dithering keeps local means
    means = [
        x.reshape(3, 8, 8, 8, 8, 3).mean((2, 4)) for x in (video.frames.astype(float), frames.astype(float))
    ]
    assert np.abs(means[0] - means[1]).max() < 12


def test_gif_of_few_colours_is_exact(tmp_path):
    """Drawn pictures have few: none may be lost or dithered, however rare."""
    frames = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)[
        np.random.default_rng(1).integers(0, 255, (3, 40, 40))
    ]
    frames[1, 7, 9] = (255, 0, 255)  # the 256th, once
    assert np.array_equal(read_video(write_video(tmp_path / "clip.gif", frames)).frames, frames)


@pytest.mark.parametrize("name", ["clip.gif", "clip.mkv", "folder", "sheet.png"])
def test_scale_makes_squares_of_pixels(tmp_path, name):
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 10, 3), dtype=np.uint8)
    path = write_video(tmp_path / name, frames, scale=3, lossless=name.endswith(".mkv"))
    if name == "sheet.png":
        assert Image.open(path).size == (60, 24)
        return
    video = read_video(path).frames
    assert np.array_equal(video, frames.repeat(3, 1).repeat(3, 2))
    with pytest.raises(ValueError, match="scale is 0"):
        write_video(path, frames, scale=0)


def test_targets_are_checked_before_work_is_spent(tmp_path):
    assert check_target(tmp_path / "new" / "clip.GIF") == tmp_path / "new" / "clip.GIF"
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("text")
    with pytest.raises(NotADirectoryError, match="file: is a file; expected a folder"):
        check_target(tmp_path / "file")
    with pytest.raises(ValueError, match=r"holds other files \(file\)"):
        check_target(tmp_path)
    with pytest.raises(ValueError, match="unknown suffix"):
        check_target(tmp_path / "clip.mpeg4")


def test_a_failed_write_leaves_the_old_folder(tmp_path, flat, monkeypatch):
    path = write_video(tmp_path / "out", flat)
    replace = os.replace

    def fail_second(source, target):
        if Path(target) == path:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_second)
    with pytest.raises(OSError, match=r"cannot write .*out: No space left"):
        write_video(path, flat[:2])
    assert np.array_equal(read_video(path).frames, flat)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_folder_is_read_in_numeric_order(tmp_path, flat):
    for number in (1, 2, 10, 11):
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(tmp_path / f"frame_{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    video = read_video(tmp_path)
    assert video.frames[:, 0, 0, 0].tolist() == [1, 2, 10, 11]
    info = probe(tmp_path)
    assert (info.width, info.height, info.frames) == (6, 4, 4)
    path = write_video(tmp_path / "out", flat)
    assert sorted(p.name for p in path.iterdir())[0] == "frame_00000.png"
    assert np.array_equal(read_video(path).frames, flat)


def test_folder_is_replaced_only_if_it_holds_frames(tmp_path, flat):
    path = write_video(tmp_path / "out", flat)
    write_video(path, flat[:2])
    assert len(list(path.iterdir())) == 2 and len(list(tmp_path.iterdir())) == 1
    (path / "precious.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"precious\.txt"):
        write_video(path, flat)
    assert (path / "precious.txt").exists()


def test_sheet_puts_frames_in_rows(tmp_path, flat):
    with Image.open(write_video(tmp_path / "sheet.png", flat)) as image:
        page = np.asarray(image)
    assert page.shape == (3 * 33, 3 * 47, 3)
    assert np.array_equal(page[33:66, :47], flat[3])
    assert (page[66:, 47:] == 255).all()
    with Image.open(write_video(tmp_path / "row.png", flat, columns=7)) as image:
        assert image.size == (7 * 47, 33)


def test_indices_select_in_any_order_with_repeats(tmp_path, blocks):
    path = write_video(tmp_path / "clip.mkv", blocks, lossless=True)
    wanted = [7, 3, 3, 39, 0]
    assert np.array_equal(read_video(path, wanted).frames, blocks[wanted])
    with pytest.raises(VideoError, match="frame 40 was asked for, but the video has 40 frames"):
        read_video(path, [0, 40])
    with pytest.raises(ValueError, match="indices"):
        read_video(path, [-1])
    with pytest.raises(ValueError, match="indices"):
        read_video(path, [])


def test_decoding_stops_after_the_last_frame_wanted(tmp_path, blocks):
    path = tmp_path / "clip.mkv"
    data = write_video(path, blocks, lossless=True).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert np.array_equal(read_video(path, [2, 5]).frames, blocks[[2, 5]])


def test_iter_frames_yields_one_at_a_time(tmp_path, blocks):
    path = write_video(tmp_path / "clip.mkv", blocks, lossless=True)
    frames = iter_frames(path)
    assert np.array_equal(next(frames), blocks[0]) and np.array_equal(next(frames), blocks[1])
    assert sum(1 for _ in frames) == 38


def test_iter_frames_gives_the_frames_wanted_in_order(tmp_path, blocks):
    path = write_video(tmp_path / "clip.mkv", blocks, lossless=True)
    assert np.array_equal(list(iter_frames(path, [7, 2, 7])), blocks[[2, 7]])
    with pytest.raises(VideoError, match="frame 50 was asked for, but the video has 40 frames"):
        list(iter_frames(path, [50]))


def test_frames_come_with_the_times_of_a_variable_frame_rate(tmp_path, blocks):
    path = tmp_path / "variable.gif"
    pictures = [Image.fromarray(frame) for frame in blocks[:4]]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 500, 100, 200])
    times = [seconds for seconds, _ in iter_timed_frames(path)]
    assert times == pytest.approx([0, 0.1, 0.6, 0.7])


def test_pictures_of_16_bits_and_transparent_ones(tmp_path):
    """16 bits are scaled, not cut off at 255; what is transparent is white, as PyAV gives it for GIFs."""
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    glass = np.zeros((8, 8, 4), np.uint8)
    glass[:, 4:] = (200, 10, 20, 255)
    (tmp_path / "levels").mkdir()
    (tmp_path / "glass").mkdir()
    Image.fromarray(levels).save(tmp_path / "levels" / "0.png")
    Image.fromarray(glass).save(tmp_path / "glass" / "0.png")
    expected = np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, 2)
    assert np.array_equal(read_video(tmp_path / "levels").frames[0], expected)
    found = read_video(tmp_path / "glass").frames[0]
    assert (found[:, :4] == 255).all() and (found[:, 4:] == (200, 10, 20)).all()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".gif", ".avi"])
def test_probe_counts_frames(tmp_path, blocks, suffix):
    info = probe(write_video(tmp_path / f"clip{suffix}", blocks, fps=20))
    assert (info.width, info.height, info.frames) == (64, 48, 40)
    assert info.fps == pytest.approx(20)


def test_a_list_of_files_is_not_followed(tmp_path, blocks):
    write_video(tmp_path / "real.mkv", blocks)
    for text in ("ffconcat version 1.0\nfile real.mkv\n", "ffconcat version 1.0\nfile gone.mkv\n"):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(VideoError, match=r"list\.mp4: not a video"):
            read_video(tmp_path / "list.mp4")


def test_matroska_that_begins_late_is_whole(tmp_path, blocks):
    """As a cut without re-encoding leaves it: its header states when it ends, not how long it lasts."""
    with av.open(str(tmp_path / "late.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number, picture in enumerate(blocks[:8]):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts = 400 + number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(read_video(tmp_path / "late.mkv").frames) == 8
    assert next(iter_timed_frames(tmp_path / "late.mkv"))[0] == pytest.approx(50)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_metadata_is_honoured(tmp_path, rotation):
    upright = np.zeros((4, 48, 64, 3), np.uint8)
    upright[:, :24, :32] = (255, 0, 0)
    upright[:, 24:, 32:] = (0, 0, 255)
    path = tmp_path / "turned.mp4"
    write_mp4(path, upright, {}, rotation)
    with av.open(str(path)) as container:
        marked = next(container.decode(video=0)).rotation
    expected = np.rot90(upright[0], marked // 90)
    assert marked != 0
    assert np.abs(read_video(path).frames[0].astype(int) - expected).mean() < 8
    assert (probe(path).height, probe(path).width) == expected.shape[:2]


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize(
    "kind", ["faststart.mp4", "fragmented.mp4", "clip.mkv", "clip.webm", "clip.gif", "clip.avi"]
)
def test_cut_off_files_are_named_with_the_frames_that_could_be_read(tmp_path, blocks, kind, share):
    whole = tmp_path / kind
    options = {"faststart": {"movflags": "faststart"}, "fragmented": {"movflags": "frag_keyframe+empty_moov"}}
    stem = kind.split(".")[0]
    if stem in options:
        write_mp4(whole, blocks, options[stem])
    else:
        write_video(whole, blocks, fps=24)
    data = whole.read_bytes()
    cut = tmp_path / f"cut-{kind}"
    cut.write_bytes(data[: int(len(data) * share)])
    for read in (read_video, probe):
        with pytest.raises(
            VideoError, match=r"cut-.*: cut off or damaged: \d+ frames could be read"
        ) as caught:
            read(cut)
        count = int(str(caught.value).split("damaged: ")[1].split()[0])
        assert 40 * share * 0.6 < count < 40
    read_video(cut, [0, 3])  # what is there can be had


def test_mp4_without_its_index(tmp_path, blocks):
    data = write_video(tmp_path / "clip.mp4", blocks).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    for read in (read_video, probe):
        with pytest.raises(VideoError, match=r"cut\.mp4: not a video, or cut off before its index: 0 frames"):
            read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", "empty file"),
        ("zeros.mp4", bytes(5000), "not a video"),
        ("text.mp4", b"hello world, some text\n" * 50, "not a video"),
        ("text.txt", b"hello world, some text\n" * 50, "not a video"),
        ("random.gif", np.random.default_rng(0).bytes(3000), "not a video"),
    ],
)
def test_what_is_no_video(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_video, probe):
        with pytest.raises(VideoError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_sound_alone(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="sound but no pictures"):
        read_video(path)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.mp4"):
        read_video(tmp_path / "nothing.mp4")
    with pytest.raises(VideoError, match="without images"):
        read_video(tmp_path)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "1.png")
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "2.png")
    with pytest.raises(VideoError, match="differ in size"):
        read_video(tmp_path)
    (tmp_path / "2.png").write_bytes(b"no picture")
    with pytest.raises(VideoError, match=r"2\.png"):
        read_video(tmp_path)


def test_accepted_forms_of_frames(flat):
    floats = flat.astype(np.float32) / 255
    assert np.array_equal(frames_as_uint8(floats), flat)
    assert np.array_equal(frames_as_uint8(torch.from_numpy(floats).permute(0, 3, 1, 2)), flat)
    assert np.array_equal(frames_as_uint8([Image.fromarray(f) for f in flat]), flat)
    assert frames_as_uint8(np.full((1, 2, 2, 3), 1.7)).max() == 255
    for wrong in (flat[0], flat[..., :2], flat[:0], []):
        with pytest.raises(ValueError, match="shape"):
            frames_as_uint8(wrong)
    with pytest.raises(ValueError, match="one size"):
        frames_as_uint8([flat[0], flat[1, :5]])
    with pytest.raises(ValueError, match="dtype int64"):
        frames_as_uint8(flat.astype(np.int64))
    with pytest.raises(ValueError, match="NaN"):
        frames_as_uint8(np.full((1, 2, 2, 3), np.nan))


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4", "clip.gif", "sheet.png", "folder"])
def test_an_iterator_of_frames_writes_the_same(tmp_path, flat, name):
    write_video(tmp_path / "held" / name, flat, scale=2)
    write_video(tmp_path / "streamed" / name, iter(flat), scale=2)
    held, streamed = (read_video(tmp_path / kind / name).frames for kind in ("held", "streamed"))
    assert np.array_equal(held, streamed)


@pytest.mark.parametrize("name", ["clip.mp4", "folder"])
def test_an_iterator_is_asked_for_a_frame_when_the_one_before_is_written(tmp_path, flat, monkeypatch, name):
    alive, most = set(), []

    def frames():
        for number in range(20):
            picture = flat[number % 7].copy()
            alive.add(number)
            weakref.finalize(picture, alive.discard, number)
            most.append(len(alive))
            yield picture

    write_video(tmp_path / name, frames())
    assert len(most) == 20 and max(most) <= 3


def test_frames_of_an_iterator_that_do_not_fit(tmp_path, flat):
    for frames, message in (
        ([flat[0], flat[0, 1:]], r"frame 1 is uint8 \[32, 47, 3\], .*, \[33, 47, 3\] as the first"),
        ([flat[0] / 255.0], r"frame 0 is float64 \[33, 47, 3\], expected uint8 \[H,W,3\]"),
        ([], "the iterator of frames gave none"),
    ):
        with pytest.raises(ValueError, match=message):
            write_video(tmp_path / "clip.mp4", iter(frames))
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_of_write(tmp_path, flat):
    with pytest.raises(ValueError, match=r"unknown suffix; expected \.mp4"):
        write_video(tmp_path / "clip.mp5", flat)
    with pytest.raises(ValueError, match="lossless"):
        write_video(tmp_path / "clip.mp4", flat, lossless=True)
    with pytest.raises(ValueError, match="fps"):
        write_video(tmp_path / "clip.mp4", flat, fps=0)
    with pytest.raises(IsADirectoryError, match="folder"):
        (tmp_path / "dir.mp4").mkdir()
        write_video(tmp_path / "dir.mp4", flat)
    assert [p.name for p in tmp_path.iterdir()] == ["dir.mp4"]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.png"])
def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, flat, name, monkeypatch):
    path = write_video(tmp_path / name, flat)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=rf"cannot write .*{name}: No space left") as caught:
        write_video(path, flat[:3])
    assert caught.value.errno == 28
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "clip.gif", "clip.png", "folder"])
def test_a_disk_that_fills_up_is_reported_by_name(tmp_path, name):
    program = f"""
import resource, signal, numpy as np
from rcv.video import write_video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
frames = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
try:
    write_video({str(tmp_path / name)!r}, frames)
except OSError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"cannot write {tmp_path / name}" in run.stdout, run.stderr
    assert not list(tmp_path.iterdir())


def test_written_files_have_ordinary_permissions(tmp_path, flat):
    (tmp_path / "plain").write_bytes(b"")
    path = write_video(tmp_path / "clip.mp4", flat)
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/videos")
@pytest.mark.parametrize(
    ("name", "size", "frames", "fps"),
    [
        ("clips/car-turn.mp4", (480, 480), 80, 10),
        ("clips/stream-of-water.mp4", (480, 360), 90, 30),
        ("asl/eat.mkv", (640, 480), 47, 30),
    ],
)
def test_real_clips(name, size, frames, fps):
    info = probe(REAL / name)
    assert ((info.width, info.height), info.frames) == (size, frames)
    assert info.fps == pytest.approx(fps, rel=0.01)
    picked = read_video(REAL / name, [0, frames - 1]).frames
    assert picked.shape == (2, size[1], size[0], 3)
    assert np.abs(picked[0].astype(int) - picked[1]).mean() > 0.5
    assert sum(1 for _ in iter_frames(REAL / name)) == frames
