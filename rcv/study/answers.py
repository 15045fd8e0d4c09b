"""The answers of a study in SQLite: on the disk before a rater is told so, one row a rater, video and question."""

import hashlib
import random
import secrets
import sqlite3
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from rcv.training.disk import writing

QUESTIONS = {
    "temporal consistency": "Do the frames follow each other smoothly, without flicker or jumps?",
    "faithfulness": "Does the video show what the text says?",
    "fidelity": "Are the pictures clear and natural?",
    "overall": "How good is the video altogether?",
}
"""The four ratings of the paper's study, and what the page asks."""
RATINGS = range(1, 6)
SIDES = ("left", "right")
LONGEST_NAME = 80
FORMAT = "1"
WAIT_SECONDS = 30
SCHEMA = """
CREATE TABLE IF NOT EXISTS study (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pairs (
    pair TEXT PRIMARY KEY, name TEXT NOT NULL, prompt TEXT NOT NULL, first TEXT NOT NULL, second TEXT NOT NULL,
    first_digest TEXT NOT NULL, second_digest TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS placements (
    rater TEXT NOT NULL, position INTEGER NOT NULL, pair TEXT NOT NULL REFERENCES pairs, left_arm TEXT NOT NULL,
    PRIMARY KEY (rater, pair)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    rater TEXT NOT NULL, pair TEXT NOT NULL REFERENCES pairs, arm TEXT NOT NULL, question TEXT NOT NULL,
    rating INTEGER NOT NULL CHECK (rating BETWEEN 1 AND 5), answered REAL NOT NULL,
    PRIMARY KEY (rater, pair, arm, question)
) WITHOUT ROWID;
"""


class Placed(NamedTuple):
    """A pair as one rater sees it: `left` and `right` are arms."""

    pair: str
    name: str
    prompt: str
    left: str
    right: str


class Row(NamedTuple):
    """One answer, as it is exported. `answered`: seconds since 1970."""

    rater: str
    name: str
    prompt: str
    arm: str
    against: str
    side: str
    question: str
    rating: int
    answered: float


class Answers:
    """The answers in one SQLite file; every method may be called from any thread and process.

    Parameters
    ----------
    path : path
        Made by `bind`.
    """

    def __init__(self, path):
        self.path = Path(path).expanduser()

    def bind(self, pairs, seed):
        """Make the file, or check that it belongs to these pairs and this seed; returns {pair's key: Pair}.

        Pairs may be added to a study that has begun.

        Raises
        ------
        ValueError
            The file belongs to a study with another seed, or a pair was removed or replaced since it began.
        """
        with self._writing() as database:
            database.executescript(SCHEMA)
            # one writer at a time: two servers that start together agree on the secret
            database.execute("BEGIN IMMEDIATE")
            settings = {"format": FORMAT, "seed": str(seed), "secret": secrets.token_hex(16)}
            for item in settings.items():
                database.execute("INSERT OR IGNORE INTO study VALUES (?, ?)", item)
            stored = dict(database.execute("SELECT name, value FROM study"))
            if stored["format"] != FORMAT:
                raise ValueError(
                    f"{self.path}: answers of another version of rcv (format {stored['format']})"
                )
            if stored["seed"] != str(seed):
                raise ValueError(
                    f"{self.path}: this study began with seed {stored['seed']}; give that seed, or other answers"
                )
            by_key = {_key(stored["secret"], pair): pair for pair in pairs}
            self._check_unchanged(database, by_key)
            for key, pair in by_key.items():
                row = (key, pair.name, pair.prompt, *pair.arms, *pair.digests)
                database.execute("INSERT OR IGNORE INTO pairs VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            database.execute("COMMIT")
        return by_key

    def begin(self, rater):
        """Return the Placed pairs of a rater, drawn when the rater first came and the same ever since.

        Order and sides are shuffled by the study's seed and the rater's name; of a rater's pairs, half (or one more)
        have their first arm on the left.
        """
        rater = checked_rater(rater)
        with self._writing() as database:
            database.execute("BEGIN IMMEDIATE")
            placed = {
                row[0] for row in database.execute("SELECT pair FROM placements WHERE rater = ?", [rater])
            }
            seed = database.execute("SELECT value FROM study WHERE name = 'seed'").fetchone()[0]
            draw = random.Random(f"{seed}/{len(placed)}/{rater}")
            new = [
                row
                for row in database.execute(
                    "SELECT pair, first, second FROM pairs ORDER BY name, first, second"
                )
                if row[0] not in placed
            ]
            draw.shuffle(new)
            flip = [number % 2 for number in range(len(new))]
            draw.shuffle(flip)
            for position, ((pair, *arms), side) in enumerate(zip(new, flip, strict=True), start=len(placed)):
                database.execute(
                    "INSERT INTO placements VALUES (?, ?, ?, ?)", (rater, position, pair, arms[side])
                )
            database.execute("COMMIT")
            return self.placed(rater, database)

    def placed(self, rater, database=None):
        """Return the Placed pairs of a rater in order; none for a rater who has not begun."""
        if database is None:
            with self._open() as database:
                return self.placed(rater, database)
        rows = database.execute(
            "SELECT pair, name, prompt, left_arm, CASE left_arm WHEN first THEN second ELSE first END "
            "FROM placements JOIN pairs USING (pair) WHERE rater = ? ORDER BY position",
            [rater],
        )
        return [Placed(*row) for row in rows]

    def put(self, rater, pair, side, question, rating):
        """Store one answer; it is on the disk when this returns. Said twice it is there once; the last counts.

        Raises
        ------
        ValueError
            A rater who has not begun; a pair, side, question or rating that does not exist.
        """
        # what a browser sends may be a list or an object, which no dict can look up
        if side not in SIDES or question not in tuple(QUESTIONS):
            raise ValueError(f"no such side and question: {side!r}, {question!r}")
        if type(rating) is not int or rating not in RATINGS:
            raise ValueError(f"the rating is {rating!r}, expected a whole number from 1 to 5")
        place = next((place for place in self.placed(rater) if place.pair == pair), None)
        if place is None:
            raise ValueError(f"{rater!r} has no pair {pair!r}: begin first")
        arm = getattr(place, side)
        with self._writing() as database:
            database.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (rater, pair, arm, question) "
                "DO UPDATE SET rating = excluded.rating, answered = excluded.answered WHERE rating != excluded.rating",
                (rater, pair, arm, question, rating, time.time()),
            )

    def of_rater(self, rater):
        """Return {(pair, side, question): rating} of what a rater has answered."""
        left = {place.pair: place.left for place in self.placed(rater)}
        with self._open() as database:
            rows = database.execute(
                "SELECT pair, arm, question, rating FROM answers WHERE rater = ?", [rater]
            )
            return {
                (pair, SIDES[arm != left[pair]], question): rating for pair, arm, question, rating in rows
            }

    def rows(self):
        """Return every answer as a Row, by rater, pair, arm and question; ValueError where there is no such file."""
        if not self.path.is_file():
            raise ValueError(f"{self.path}: no answers there yet; `rcv study serve` collects them")
        with self._open() as database:
            rows = database.execute(
                "SELECT rater, name, prompt, arm, CASE arm WHEN first THEN second ELSE first END, "
                "CASE arm WHEN left_arm THEN 'left' ELSE 'right' END, question, rating, answered "
                "FROM answers JOIN pairs USING (pair) JOIN placements USING (rater, pair) "
                "ORDER BY rater, name, first, second, arm, question"
            )
            return [Row(*row) for row in rows]

    def _check_unchanged(self, database, by_key):
        for key, name, first, second, *digests in database.execute(
            "SELECT pair, name, first, second, first_digest, second_digest FROM pairs"
        ):
            told = f"{self.path}: this study began with the pair {name!r} of {first} and {second}"
            if key not in by_key:
                raise ValueError(
                    f"{told}, which is gone or has another prompt; put it back, or give other answers"
                )
            if tuple(digests) != by_key[key].digests:
                raise ValueError(f"{told}, whose videos were replaced; put them back, or give other answers")

    @contextmanager
    def _writing(self):
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as database:
                yield database

    @contextmanager
    def _open(self):
        """A connection of this call's own. In write-ahead logging with full synchronisation a commit is on the disk."""
        try:
            database = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
            with closing(database):
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                yield database
        except sqlite3.Error as error:
            raise OSError(f"{self.path}: cannot be used ({error})") from error


def checked_rater(rater):
    """Return a rater's name with white space collapsed; ValueError for none, or one that is too long."""
    name = " ".join(rater.split()) if isinstance(rater, str) else ""
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"{rater!r} is no name; expected 1 to {LONGEST_NAME} characters")
    return name


def _key(secret, pair):
    """What a pair is called outside: nothing can be read off it."""
    text = "\0".join((secret, pair.name, pair.prompt, *pair.arms))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
