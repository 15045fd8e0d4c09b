"""Means, intervals and the paired test on ratings whose answers are known."""

import csv
import itertools
import json

import numpy as np
import pytest

from rcv.study.answers import Row
from rcv.study.results import sign_flip_p, summary


def rows_of(ratings, question="overall"):
    """Rows of {(rater, name): (rating of a, rating of b)}."""
    return [
        Row(rater, name, "p", arm, "ab".replace(arm, ""), "left", question, rating, 0.0)
        for (rater, name), pair in ratings.items()
        for arm, rating in zip("ab", pair, strict=True)
        if rating is not None
    ]


def test_a_rater_counts_once_however_many_pairs_were_rated():
    means, differences = summary(rows_of({("Ann", "x"): (5, 1), ("Ann", "y"): (5, 1), ("Bob", "x"): (1, 1)}))
    assert [(mean.arm, mean.mean, mean.raters, mean.ratings) for mean in means] == [
        ("a", 3.0, 2, 3),
        ("b", 1.0, 2, 3),
    ]
    (difference,) = differences
    assert (difference.mean, difference.raters, difference.pairs) == (2.0, 2, 3)
    assert difference.low <= 2.0 <= difference.high


def test_halves_of_pairs_count_for_means_alone():
    means, differences = summary(rows_of({("Ann", "x"): (5, None), ("Ann", "y"): (4, 2)}))
    assert means[0].mean == 4.5 and differences[0].mean == 2.0
    assert means[0].low is None
    assert summary([]) == ([], [])


def test_the_exact_test():
    assert sign_flip_p([1.0] * 6) == 2 / 2**6
    assert sign_flip_p([1.0, -1.0]) == 1.0
    values = np.array([0.5, 1.25, -0.25, 2.0, 0.75])
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=5)]
    assert sign_flip_p(values) == np.mean([found >= values.sum() - 1e-9 for found in sums])


def test_the_random_test_agrees_with_the_exact_one(monkeypatch):
    values = np.random.default_rng(1).normal(0.4, 1, 12)
    exact = sign_flip_p(values)
    monkeypatch.setattr("rcv.study.results.EXACT_RATERS", 5)
    assert sign_flip_p(values) == pytest.approx(exact, abs=0.02)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """In 150 studies of 20 raters with a true difference of 1; percentiles of few raters hold a little less."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(150):
        ratings = {(f"r{k}", "x"): (3 + rng.choice([0, 1, 2]), 3) for k in range(20)}
        (difference,) = summary(rows_of(ratings))[1]
        held += difference.low <= 1.0 <= difference.high
    assert 0.86 <= held / 150 <= 0.99


def test_export_and_results_on_the_command_line(served, tmp_path, capsys):
    from rcv.cli import main

    for number in range(3):
        for place in served.answers.begin(f"rater {number}"):
            for side in ("left", "right"):
                rating = 4 if getattr(place, side) == "ours" else 2
                served.answers.put(f"rater {number}", place.pair, side, "fidelity", rating)
    output = tmp_path / "answers.csv"
    for arguments in (["export", served.folder, "--output", output], ["results", served.folder]):
        with pytest.raises(SystemExit) as exit:
            main(["study", *map(str, arguments)])
        assert exit.value.code in (0, None)
    said = capsys.readouterr().out
    assert "18 answers of 3 raters" in said and "fidelity" in said
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["arm"], row["rating"]) for row in rows} == {("ours", "4"), ("theirs", "2")}
    with pytest.raises(SystemExit):
        main(["study", "results", str(served.folder), "--json"])
    (difference,) = json.loads(capsys.readouterr().out)["differences"]
    assert (difference["mean"], difference["p"], difference["raters"]) == (2.0, 0.25, 3)
