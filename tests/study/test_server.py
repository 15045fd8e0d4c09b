"""The study over HTTP: raters at once, a server that is killed, and nothing that tells the arms apart."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from rcv.study import Answers
from rcv.study.answers import QUESTIONS, SIDES
from tests.study.videos import write_arms

RATERS = 12


def post(address, path, body):
    request = Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=10) as answer:
        return json.load(answer)


def insist(address, path, body):
    """As the page does: sent again until the server says that it has it."""
    end = time.monotonic() + 120
    while True:
        try:
            return post(address, path, body)
        except HTTPError:
            raise
        except (OSError, ValueError, HTTPException):  # killed before, or in the middle of, its answer
            assert time.monotonic() < end
            time.sleep(0.02)


def status_of(address, path, body=None, **headers):
    try:
        with urlopen(Request(address + path, body, headers), timeout=10) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


@pytest.fixture
def serve(tmp_path):
    """A function that starts `rcv study serve` on one and the same port and returns its process."""
    folder = write_arms(tmp_path / "study")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = []

    def start():
        command = [sys.executable, "-m", "rcv", "study", "serve", str(folder), "--port", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert f"3 pairs at http://127.0.0.1:{port}" in process.stdout.readline()
        return process

    start.address, start.answers = f"http://127.0.0.1:{port}", Answers(folder / "answers.sqlite")
    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_twelve_raters_and_a_kill_lose_and_double_nothing(serve):
    server = serve()
    expected, acknowledged, failures = {}, [], []

    def rate(number):
        try:
            draw, rater = random.Random(number), f"rater {number}"
            session = insist(serve.address, "/api/session", {"rater": rater})
            if number % 3 == 0:  # a reload
                assert insist(serve.address, "/api/session", {"rater": rater}) == session
            for pair in session["pairs"]:
                for question in QUESTIONS:
                    for side in SIDES:
                        rating = draw.randint(1, 5)
                        said = {"rater": rater, "pair": pair["pair"], "side": side, "question": question}
                        for _ in range(1 + (draw.random() < 0.2)):  # some are sent twice
                            insist(serve.address, "/api/answer", {**said, "rating": rating})
                        expected[rater, pair["pair"], side, question] = rating
                        acknowledged.append(1)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=rate, args=(number,)) for number in range(RATERS)]
    for thread in threads:
        thread.start()
    total = RATERS * 3 * len(QUESTIONS) * len(SIDES)
    while len(acknowledged) < total // 3:
        assert not failures and any(thread.is_alive() for thread in threads)
        time.sleep(0.005)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    killed_at = len(acknowledged)
    serve()
    for thread in threads:
        thread.join()
    assert failures == [] and killed_at < total
    stored = {
        (rater, *rest): rating
        for rater in (f"rater {number}" for number in range(RATERS))
        for rest, rating in serve.answers.of_rater(rater).items()
    }
    assert stored == expected and len(serve.answers.rows()) == total


def test_nothing_that_is_sent_tells_the_arms(served):
    sent = [urlopen(served.address + path).read().decode() for path in ("/", "/study.js", "/study.css")]
    sent.append(json.dumps(post(served.address, "/api/session", {"rater": "Ann"})))
    for place in served.answers.placed("Ann"):
        with urlopen(f"{served.address}/video/{place.pair}/left?rater=Ann") as answer:
            sent.append(str(answer.headers))
            assert answer.read() == (served.folder / place.left / f"{place.name}.gif").read_bytes()
        with urlopen(f"{served.address}/video/{place.pair}/right?rater=Ann") as answer:
            assert answer.read() == (served.folder / place.right / f"{place.name}.gif").read_bytes()
    for text in sent:
        assert "ours" not in text.replace("yours", "") and "theirs" not in text


def test_parts_of_a_video(served):
    pair = served.answers.begin("Ann")[0].pair
    address = f"{served.address}/video/{pair}/left?rater=Ann"
    whole = urlopen(address).read()
    for asked, part in (("bytes=5-9", whole[5:10]), ("bytes=7-", whole[7:]), ("bytes=-4", whole[-4:])):
        with urlopen(Request(address, headers={"Range": asked})) as answer:
            assert answer.status == 206 and answer.read() == part
    assert status_of(address, "", Range=f"bytes={len(whole)}-") == 416


def test_requests_that_are_no_page_of_ours_are_refused(served):
    pair = served.answers.begin("Ann")[0].pair
    answer = {"rater": "Ann", "pair": pair, "side": "left", "question": "overall", "rating": 3}
    body, kind = json.dumps(answer).encode(), {"Content-Type": "application/json"}
    assert status_of(served.address, "/api/answer", body, **{"Content-Type": "text/plain"}) == 400
    assert status_of(served.address, "/api/answer", body, Host="example.com", **kind) == 400
    assert status_of(served.address, "/", Host="example.com") == 400
    assert status_of(served.address, "/api/answer", b"[1", **kind) == 400
    assert status_of(served.address, "/api/answer", b"[1]", **kind) == 400
    assert status_of(served.address, "/api/answer", b" " * 20_000, **kind) == 400
    for wrong in ({"rating": 9}, {"question": []}, {"pair": {}}):
        sent = json.dumps({**answer, **wrong}).encode()
        assert status_of(served.address, "/api/answer", sent, **kind) == 400
    for path in (
        "/../answers.sqlite",
        "/answers.sqlite",
        f"/video/{pair}/left",
        f"/video/{pair}/up?rater=Ann",
    ):
        assert status_of(served.address, path) == 404
    assert served.answers.rows() == []
    assert status_of(served.address, "/api/answer", body, **kind) == 200


def test_a_taken_port_is_named(serve):
    serve()
    port = serve.address.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "rcv", "study", "serve", str(serve.answers.path.parent), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and f"port {port} of 127.0.0.1 cannot be had" in done.stderr
