"""The study's page in a headless Chromium. RCV_TEST_SCREENSHOTS names a folder that keeps what it looked like."""

import os
import threading
from pathlib import Path

from rcv.study import make_server
from rcv.study.answers import QUESTIONS


def keep_screenshot(page, name):
    if folder := os.environ.get("RCV_TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def begin(page, address, rater):
    page.goto(address)
    page.get_by_label("Your name").fill(rater)
    page.keyboard.press("Enter")
    page.wait_for_selector("#questions fieldset")


def test_a_study_by_the_keyboard_alone_with_a_reload(page, served):
    begin(page, served.address, "Ann B")
    places = served.answers.placed("Ann B")
    assert page.inner_text("#prompt") == places[0].prompt
    for key in "1234":
        page.keyboard.press(key)
    page.get_by_text("kept", exact=True).wait_for()
    assert page.inner_text("#missing") == "4 ratings to go"
    page.keyboard.press("Enter")  # not before all is rated
    keep_screenshot(page, "study")

    page.reload()
    page.wait_for_selector("#questions fieldset")
    assert page.locator("fieldset:focus-within legend").inner_text().startswith("left: fidelity")
    for key in "5123":
        page.keyboard.press(key)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")  # the seventh row's 2 becomes a 3
    page.keyboard.press("Enter")
    for place in places[1:]:
        assert page.inner_text("#prompt") == place.prompt
        for _ in range(8):
            page.keyboard.press("3")
        page.keyboard.press("Enter")
    page.get_by_text("Thank you").wait_for()
    keep_screenshot(page, "study-end")

    given = served.answers.of_rater("Ann B")
    assert len(given) == len(served.answers.rows()) == 24
    rows = [(question, side) for question in QUESTIONS for side in ("left", "right")]
    first = [given[places[0].pair, side, question] for question, side in rows]
    assert first == [1, 2, 3, 4, 5, 1, 3, 3]


def test_answers_wait_for_a_server_that_is_away(page, served, monkeypatch):
    begin(page, served.address, "Ann")
    monkeypatch.setattr(type(served.answers), "put", _unreachable)
    page.keyboard.press("4")
    page.get_by_text("not kept yet (1): the disk is full; trying again").wait_for()
    keep_screenshot(page, "study-waiting")
    monkeypatch.undo()
    page.get_by_text("kept", exact=True).wait_for()
    ((_, side, question),) = served.answers.of_rater("Ann")
    assert (side, question) == ("left", "temporal consistency")


def test_two_raters_in_one_browser_and_a_name_that_is_none(page, served):
    page.goto(served.address)
    page.get_by_label("Your name").fill("   ")
    page.get_by_role("button", name="Begin").click()
    page.get_by_text("is no name").wait_for()
    begin(page, served.address, "Ann")
    page.keyboard.press("1")
    page.get_by_text("kept", exact=True).wait_for()
    page.get_by_role("button", name="Not you?").click()
    page.get_by_label("Your name").fill("Bob")
    page.keyboard.press("Enter")
    page.wait_for_selector("#questions fieldset")
    page.keyboard.press("2")
    page.get_by_text("kept", exact=True).wait_for()
    assert [(row.rater, row.rating) for row in served.answers.rows()] == [("Ann", 1), ("Bob", 2)]


def test_every_rating_has_a_label_and_no_markup_of_prompts_runs(page, served):
    with make_server(served.answers, served.pairs, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        begin(page, f"http://127.0.0.1:{server.server_port}", "<img src=x>")
        assert page.locator("#who").inner_text() == "rated by <img src=x>"
        assert page.get_by_role("radio", name="4", exact=True).count() == 8
        assert page.get_by_role("group", name="right: overall").count() == 1
        assert page.locator("figure img").evaluate_all(
            "all => all.every(one => one.complete && one.naturalWidth)"
        )
        server.shutdown()
        thread.join()


def _unreachable(*_):
    raise OSError("the disk is full")
