"""The report: numbers of the cells, nothing from the network, readable in a real browser."""

import re

import pytest

from rcv.reproduce.arms import chosen_study
from rcv.reproduce.cells import study_cells, write_result
from rcv.reproduce.columns import frames_table
from rcv.reproduce.config import ReproduceConfig
from rcv.reproduce.html import page as html_page
from rcv.reproduce.markdown import text as markdown_text
from rcv.reproduce.plots import study_plots
from rcv.reproduce.report import write_report
from rcv.reproduce.table import study_table
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


def test_long_videos_are_compared_by_quarters(models, tmp_path):
    arms = ["recurrent: 32 frames", "tune-a-video: 32 frames"]
    config = ReproduceConfig(
        **models, study="long", arms=arms, seeds=range(6), themes=["raining"], output=tmp_path
    )
    study = chosen_study(config, "long")
    for cell in study_cells(config, study):
        if cell.arm.preset is None:
            continue
        lost = 0.5 if cell.arm.name == arms[1] else 0.0
        by_frame = [1.0] * 24 + [1.0 - lost - 0.01 * cell.seed] * 8
        video = {"scores": {"truth": 0.5 + 0.01 * cell.seed - lost}, "subject_by_frame": by_frame}
        said = {
            "device": "a device",
            "threads": 1,
            "versions": {},
            "sample_seconds": 1.0,
            "score_seconds": 1.0,
        }
        cell.folder.mkdir(parents=True)
        write_result(cell.folder, {**said, "videos": [video]})
    table = study_table(config, study)
    head, rows = frames_table(table)
    assert head == ["subject right", "first quarter", "second", "third", "last"]
    assert [row[0] for row in rows] == [*arms, " - ".join(arms)]
    assert [row[3] for row in rows] == ["1.000 (1.000 to 1.000)"] * 2 + ["+0.000 (+0.000 to +0.000)"]
    assert rows[0][4].startswith("0.975 (") and rows[2][4] == "+0.500 (+0.500 to +0.500)"
    assert f"| {' | '.join(rows[2])} |" in markdown_text(config, [(table, [], {})])
    assert rows[2][4] in html_page(config, [(table, [], study_plots(table), [])])
