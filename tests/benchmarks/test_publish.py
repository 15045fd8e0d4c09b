"""README and docs say what the result files say."""

import pytest
from PIL import Image

from benchmarks import publish
from benchmarks.results import ROOT

RECORDS = publish.measured()


def test_there_are_results():
    assert any("steps" in record for record in RECORDS.values())
    assert any("rows" in record for record in RECORDS.values())


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("benchmarks", "targets", "computed"))],
    ids=str,
)
def test_pages_agree_with_the_results(path):
    assert path.read_text(encoding="utf-8") == publish.pages(RECORDS)[path], (
        "run python -m benchmarks.publish"
    )


@pytest.mark.parametrize("name", [name for name, record in RECORDS.items() if "rows" in record])
def test_plots_are_of_the_results(name):
    plots = sorted((ROOT / "docs" / "benchmarks").glob(f"{name}-*.png"))
    assert {path.stem.removeprefix(f"{name}-") for path in plots} >= {"bars", "roofline"}
    for path in plots:
        with Image.open(path) as image:
            assert image.text["Source"] == publish.fingerprint(RECORDS[name]), (
                "run python -m benchmarks.publish"
            )


def test_every_figure_says_where_and_with_what_it_was_measured():
    for record in RECORDS.values():
        assert record["label"].startswith("measured on ")
        assert len(record["commit"]) == 40  # and no files that differed from it
        assert record["versions"]["torch"]


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="markers"):
        publish.with_section("no markers", "table")
    assert (
        publish.with_section(f"a{publish.BEGIN}old{publish.END}b", "new\n")
        == f"a{publish.BEGIN}\nnew\n{publish.END}b"
    )
