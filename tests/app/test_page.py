"""The app in a headless Chromium. RCV_TEST_SCREENSHOTS names a folder that keeps what it looked like."""

import os
import re
import time
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the extra app is not installed")

from rcv.video import write_video
from tests.app.clips_to_train import write_clips
from tests.tiny import make_tiny_sd
from tests.training.clip_files import moving_square

PATIENCE_SECONDS = 300


def keep_screenshot(page, name):
    if folder := os.environ.get("RCV_TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def wait_for_status(page, words):
    end = time.monotonic() + PATIENCE_SECONDS
    while not re.search(words, said := page.inner_text("#status")):
        assert time.monotonic() < end and "error" not in said, said
        page.wait_for_timeout(100)
    return said


def choose_folder(page, folder):
    page.get_by_label("A folder on this machine").check()
    page.fill("#folder textarea", str(folder))


def test_clips_are_shown_and_mistakes_are_messages(page, address, tmp_path):
    clips = write_clips(tmp_path / "clips", 2)
    (clips / "broken.mp4").write_text("no video")
    page.goto(address)
    choose_folder(page, clips)
    page.click("#look")
    page.wait_for_selector("#strips figure")
    assert page.locator("#strips figcaption").all_inner_texts()[0].startswith("0.mp4: square 0 (")
    assert "broken.mp4: no caption" in page.inner_text("#problems")
    keep_screenshot(page, "clips")

    page.get_by_label("Name of the run").fill("../elsewhere")
    page.click("#start")
    page.get_by_text("'../elsewhere' cannot name a run").wait_for()
    page.get_by_label("Name of the run").fill("birds")
    page.get_by_label("Size").fill("wide")
    page.click("#start")
    page.get_by_text("size: 'wide' is no size").wait_for()
    assert "Traceback" not in page.content()
    page.get_by_role("tab", name="Generate").click()
    page.get_by_label("Adapter", exact=True).fill(str(tmp_path / "nowhere"))
    page.click("#generate")
    page.get_by_text("nowhere").get_by_text("does not exist").first.wait_for()
    keep_screenshot(page, "message")
    assert not (tmp_path / "elsewhere").exists() and not (tmp_path / "birds").exists()


def test_other_hosts_are_refused(address):
    import httpx

    assert httpx.get(address, headers={"Host": "example.com"}).status_code == 400
    sent = httpx.post(
        f"{address}/gradio_api/upload",
        files={"files": ("a.txt", b"text")},
        headers={"Origin": "http://example.com"},
    )
    assert sent.status_code == 403
    answer = httpx.get(address)
    assert answer.status_code == 200 and "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"""(?:src|href)=["']https?://""", answer.text)


@pytest.mark.slow
def test_a_run_and_its_videos_through_the_browser(page, address, tmp_path):
    base, clips = make_tiny_sd(tmp_path / "base"), write_clips(tmp_path / "clips", 3)
    page.goto(address)
    choose_folder(page, clips)
    page.get_by_label("Name of the run").fill("squares")
    page.fill("#base textarea", str(base))
    for label, value in (("Frames", 3), ("Steps", 800), ("Size", 32), ("Learning rate", "1e-3")):
        page.get_by_label(label, exact=True).fill(str(value))
    page.click("#start")
    wait_for_status(page, r"Training.*step \d+ of 800, loss")
    page.click("#start")
    page.get_by_text("'squares' is running already").wait_for()
    page.click("#stop")
    stopped = int(re.search(r"(\d+) of 800", wait_for_status(page, "Not running"))[1])
    assert 0 < stopped < 800
    page.click("#go-on")
    wait_for_status(page, rf"Training.*step (?!{stopped} )\d+ of 800, loss")
    page.wait_for_selector("#curve polyline")
    keep_screenshot(page, "training")
    page.reload()  # a browser that was closed finds the run where it is
    wait_for_status(page, "Finished")
    steps = [line.split(",")[0] for line in (tmp_path / "squares" / "losses.csv").read_text().splitlines()]
    assert steps == ["step", *map(str, range(1, 801))]
    write_video(tmp_path / "squares" / "samples" / "step-000800" / "a-fox.gif", moving_square(3))
    page.wait_for_selector("#samples img")
    keep_screenshot(page, "finished")

    page.get_by_role("tab", name="Generate").click()
    page.get_by_label("Adapter", exact=True).click()
    page.get_by_role("option", name=str(tmp_path / "squares")).click()
    page.get_by_label("Denoising steps", exact=True).fill("2")
    page.click("#generate")
    page.wait_for_selector("#generated video")
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == 1
    keep_screenshot(page, "generated")

    page.get_by_role("tab", name="Compare").click()
    for letter in "AB":
        page.get_by_label(f"Adapter {letter}", exact=True).click()
        page.get_by_role("option", name=str(tmp_path / "squares")).click()
    page.get_by_label("Denoising steps of both", exact=True).fill("2")
    page.click("#compare")
    page.wait_for_selector("#compared-b video")
    videos = sorted((tmp_path / "videos").glob("*.mp4"))
    assert len(videos) == 3
    for letter in "ab":  # 32 pixels, enlarged
        page.wait_for_function(f"document.querySelector('#compared-{letter} video').videoWidth === 320")
    assert videos[1].read_bytes() != videos[2].read_bytes()  # seeds 0 and 1
    keep_screenshot(page, "compared")
