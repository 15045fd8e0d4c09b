"""The report: numbers of the cells, nothing from the network, readable in a real browser."""

import re

import pytest

from rcv.reproduce.report import write_report
from rcv.video import read_video


@pytest.fixture(scope="module")
def report(computed):
    config, _ = computed
    return write_report(config)


def test_the_page_holds_everything_itself(report):
    html = report[0].read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]{0,40})', html)
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert "http" not in re.sub(r'src="[^"]+"', "", html)
    for text in ("tune-a-video guided, one shot", "true clips", "seeds", "versions", "torch"):
        assert text in html


def test_markdown_has_the_same_numbers(report, computed):
    config, _ = computed
    markdown, html = report[1].read_text(encoding="utf-8"), report[0].read_text(encoding="utf-8")
    row = next(line for line in markdown.splitlines() if line.startswith("| recurrent |"))
    assert all(f"<td>{text.strip()}</td>" in html for text in row.strip("|").split("|"))
    for plot in re.findall(r"!\[.*\]\((.*)\)", markdown):
        assert (config.output / plot).read_text().lstrip().startswith("<?xml")
    assert (
        "against tune-a-video guided, one shot on motion truth" in markdown and "too few to tell" in markdown
    )


@pytest.mark.slow
def test_a_browser_shows_it(report, page, tmp_path):
    page.goto(report[0].as_uri())
    assert page.locator("table").count() == 2
    pictures = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
    assert len(pictures) > 4 and all(pictures)
    assert page.locator("tr.own").first.inner_text().startswith("recurrent")
    page.locator("summary").first.click()
    assert page.locator(".sheet img").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=tmp_path / "report.png", full_page=True)
    assert read_video(tmp_path / "report.png").frames.std() > 10
