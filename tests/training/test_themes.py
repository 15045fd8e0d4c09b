"""Runs without clips: a theme of the motion world is rendered into the output."""

import pytest

from rcv.training import FinetuneConfig, finetune
from rcv.training.setup import rendered_clips


@pytest.fixture
def config(base, tmp_path):
    def make(**settings):
        return FinetuneConfig(
            **{
                "base": base,
                "frames": 4,
                "size": 32,
                "clip_count": 8,
                "steps": 2,
                "eval_draws": 1,
                **settings,
            },
            output=tmp_path / "run",
        )

    return make


def captions(folder):
    return [file.read_text() for file in sorted(folder.glob("*.txt"))]


def test_a_run_renders_its_clips_once(config):
    first = finetune(config(), show_progress=False)
    (folder,) = (config().output / "clips").iterdir()
    times = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(captions(folder)) == 8
    again = finetune(config(), show_progress=False)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == times
    assert again.losses == first.losses


def test_excluded_subjects_are_not_rendered(config):
    shown = captions(rendered_clips(config(clip_count=24, theme="animal walking")))
    kept = captions(rendered_clips(config(clip_count=24, exclude_subject=["elephant", "fox"])))
    assert any("elephant" in caption for caption in shown)
    assert len(kept) == 24
    assert not any("elephant" in caption or "fox" in caption for caption in kept)


def test_a_stride_renders_the_frames_that_it_spans(config):
    from rcv.video import probe

    folder = rendered_clips(config(stride=3, size="32x48"))
    info = probe(next(file for file in folder.iterdir() if file.suffix != ".txt"))
    assert (info.frames, info.height, info.width) == (10, 32, 48)


@pytest.mark.parametrize("fps", [3, 8, 24])
def test_a_rate_renders_the_frames_that_it_spans(config, fps):
    from rcv.training.setup import open_clips

    clips = open_clips(config(fps=fps, stride=2, clip_count=2))
    assert all(clip.frames >= 7 for clip in clips.clips)


def test_a_killed_rendering_leaves_no_folder_of_that_name(config, monkeypatch):
    import rcv.world

    def killed(folder, *_, **__):
        (folder / "0.mp4").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rcv.world, "write_clips", killed, raising=False)
        with pytest.raises(KeyboardInterrupt):
            rendered_clips(config())
    assert len(captions(rendered_clips(config()))) == 8
