"""A study served in the tests' own process."""

import threading
from types import SimpleNamespace

import pytest

from rcv.study import Answers, find_pairs, make_server
from tests.study.videos import write_arms


@pytest.fixture
def served(tmp_path):
    """A study of three pairs: `address`, `answers`, `folder`."""
    folder = write_arms(tmp_path / "study")
    answers = Answers(folder / "answers.sqlite")
    pairs = answers.bind(find_pairs(folder)[0], seed=0)
    with make_server(answers, pairs, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield SimpleNamespace(
            address=f"http://127.0.0.1:{server.server_port}", answers=answers, folder=folder, pairs=pairs
        )
        server.shutdown()
        thread.join()
