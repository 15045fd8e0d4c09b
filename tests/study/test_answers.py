"""Answers in SQLite: once, at once, and only of the study that they belong to."""

import collections
import dataclasses
from pathlib import Path

import pytest

from rcv.study import Answers
from rcv.study.answers import QUESTIONS, checked_rater
from rcv.study.pairs import Pair
from rcv.training import OutputError

PAIRS = [
    Pair(name, f"a {name}", ("a", "b"), (Path("a"), Path("b")), ("1", "2"))
    for name in ("x", "y", "z", "u", "v", "w")
]


@pytest.fixture
def answers(tmp_path):
    answers = Answers(tmp_path / "answers.sqlite")
    answers.bind(PAIRS, seed=3)
    return answers


def test_an_answer_is_there_once_and_the_last_counts(answers):
    first = answers.begin("Ann")[0]
    for rating in (2, 2, 5):
        answers.put("Ann", first.pair, "left", "overall", rating)
    (row,) = answers.rows()
    assert (row.rater, row.name, row.arm, row.side, row.question, row.rating) == (
        *("Ann", first.name, first.left, "left"),
        *("overall", 5),
    )
    assert {row.arm, row.against} == {"a", "b"}
    assert answers.of_rater("Ann") == {(first.pair, "left", "overall"): 5}
    assert answers.of_rater("Bob") == {}


def test_order_and_sides_are_drawn_once_a_rater(answers, tmp_path):
    placed = {f"rater {number}": answers.begin(f"rater {number}") for number in range(40)}
    for rater, places in placed.items():
        assert answers.begin(rater) == places == answers.placed(rater)
        assert sorted(place.name for place in places) == sorted(pair.name for pair in PAIRS)
        assert sum(place.left == "a" for place in places) == 3
        assert all({place.left, place.right} == {"a", "b"} for place in places)
    assert len({tuple(place.name for place in places) for places in placed.values()}) > 30
    firsts = collections.Counter(places[0].left for places in placed.values())
    assert 8 < firsts["a"] < 32
    again = Answers(tmp_path / "again.sqlite")
    again.bind(PAIRS, seed=3)
    assert [place[1:] for place in again.begin("rater 0")] != [place[1:] for place in placed["rater 1"]]


def test_what_a_pair_is_called_tells_nothing(answers, tmp_path):
    keys = answers.bind(PAIRS, seed=3)
    other = Answers(tmp_path / "other.sqlite").bind(PAIRS, seed=3)
    assert not keys.keys() & other.keys()  # a secret of each study's own


def test_a_study_goes_on_only_as_it_was(answers):
    assert answers.bind(PAIRS, seed=3) == answers.bind(PAIRS, seed=3)
    with pytest.raises(ValueError, match="began with seed 3"):
        answers.bind(PAIRS, seed=4)
    with pytest.raises(ValueError, match="'x' of a and b, which is gone"):
        answers.bind(PAIRS[1:], seed=3)
    changed = [dataclasses.replace(PAIRS[0], digests=("1", "3")), *PAIRS[1:]]
    with pytest.raises(ValueError, match="'x' of a and b, whose videos were replaced"):
        answers.bind(changed, seed=3)


def test_added_pairs_come_last(answers):
    before = answers.begin("Ann")
    answers.bind([*PAIRS, dataclasses.replace(PAIRS[0], name="new")], seed=3)
    assert answers.begin("Ann")[:-1] == before
    assert answers.begin("Ann")[-1].name == "new"


@pytest.mark.parametrize(
    ("side", "question", "rating"),
    [
        *[("left", "overall", rating) for rating in (0, 6, 2.0, "3", True, None)],
        *[("middle", "overall", 3), ("left", "beauty", 3), (None, None, 3)],
        *[("left", [], 3), ({}, "overall", 3)],
    ],
)
def test_what_is_no_answer_is_refused(answers, side, question, rating):
    pair = answers.begin("Ann")[0].pair
    with pytest.raises(ValueError):
        answers.put("Ann", pair, side, question, rating)
    with pytest.raises(ValueError, match="begin first"):
        answers.put("Bob", pair, "left", "overall", 3)
    assert answers.rows() == []


def test_names_of_raters():
    assert checked_rater("  Ann  B ") == "Ann B"
    for name in ("", " ", None, 3, "x" * 81, "a\0b"):
        with pytest.raises(ValueError, match="is no name"):
            checked_rater(name)


def test_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(ValueError, match="no answers there yet"):
        Answers(tmp_path / "none.sqlite").rows()
    text = tmp_path / "text.sqlite"
    text.write_text("not a database, but long enough to be taken for one " * 10)
    with pytest.raises(OutputError, match=r"text\.sqlite.*not a database"):
        Answers(text).bind(PAIRS, seed=0)


def test_there_are_the_four_questions_of_the_paper():
    assert list(QUESTIONS) == ["temporal consistency", "faithfulness", "fidelity", "overall"]
