"""The study's web server: a page, its videos under names that say nothing, and answers that are kept at once."""

import json
import re
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from rcv.study.answers import QUESTIONS, SIDES, checked_rater
from rcv.study.pairs import MEDIA_TYPES

STATIC = Path(__file__).parent / "static"
PAGES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/study.js": ("study.js", "text/javascript; charset=utf-8"),
    "/study.css": ("study.css", "text/css; charset=utf-8"),
}
LOCAL = ("127.0.0.1", "localhost")
LONGEST_BODY = 10_000
IDLE_SECONDS = 60


def make_server(answers, pairs, host, port):
    """Return an HTTP server of a study, bound to its port; `serve_forever` runs it, a thread a connection.

    Parameters
    ----------
    answers : Answers
    pairs : dict
        {key: Pair}, as `Answers.bind` returns it.

    Raises
    ------
    OSError
        The port is taken.
    """
    handler = type(
        "StudyHandler", (_Handler,), {"answers": answers, "pairs": pairs, "is_local": host in LOCAL}
    )
    try:
        return _Server((host, port), handler)
    except OSError as error:
        raise OSError(
            None, f"port {port} of {host} cannot be had ({error.strerror}); choose another one"
        ) from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Pass over browsers that went away in the middle of a video."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    server_version, sys_version = "rcv", ""

    def do_GET(self):
        if not self._is_allowed():
            return
        address = urlsplit(self.path)
        if address.path in PAGES:
            name, kind = PAGES[address.path]
            self._send(HTTPStatus.OK, kind, (STATIC / name).read_bytes())
        elif match := re.fullmatch(r"/video/([0-9a-f]{16})/(left|right)", address.path):
            self._send_video(*match.groups(), parse_qs(address.query).get("rater", [""])[0])
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing here")

    def do_POST(self):
        if not self._is_allowed():
            return
        actions = {"/api/session": self._session, "/api/answer": self._answer}
        action = actions.get(self.path)
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if action is None or not 0 <= length <= LONGEST_BODY:
            self.close_connection = True  # what was sent stays unread
            self._refuse(HTTPStatus.NOT_FOUND if action is None else HTTPStatus.BAD_REQUEST, "not understood")
            return
        body = self.rfile.read(length)
        # a form on another site can send plain text without asking, but not this
        if self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.BAD_REQUEST, "expected application/json")
            return
        try:
            said = json.loads(body)
            if not isinstance(said, dict):
                raise ValueError("expected an object")
            answer = action(said)
        except ValueError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:  # the page says so and tries again
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        else:
            self._send(HTTPStatus.OK, "application/json", json.dumps(answer).encode())

    def _session(self, said):
        """The rater's pairs in order with what was answered already; nothing in it tells the arms."""
        rater = checked_rater(said.get("rater"))
        placed, given = self.answers.begin(rater), self.answers.of_rater(rater)
        return {
            "rater": rater,
            "questions": QUESTIONS,
            "pairs": [
                {
                    "pair": place.pair,
                    "prompt": place.prompt,
                    "kind": MEDIA_TYPES[self.pairs[place.pair].videos[0].suffix.lower()].split("/")[0],
                    "answers": {
                        side: {
                            question: given[place.pair, side, question]
                            for question in QUESTIONS
                            if (place.pair, side, question) in given
                        }
                        for side in SIDES
                    },
                }
                for place in placed
            ],
        }

    def _answer(self, said):
        fields = [said.get(name) for name in ("pair", "side", "question", "rating")]
        self.answers.put(checked_rater(said.get("rater")), *fields)
        return {"saved": True}

    def _send_video(self, key, side, rater):
        placed = {place.pair: place for place in self.answers.placed(" ".join(rater.split()))}
        if key not in placed:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing here")
            return
        pair = self.pairs[key]
        path = pair.videos[pair.arms.index(getattr(placed[key], side))]
        try:
            content = path.read_bytes()
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND, "this video cannot be read any more")
            return
        kind = MEDIA_TYPES[path.suffix.lower()]
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None or not any(asked.groups()):
            self._send(HTTPStatus.OK, kind, content, {"Accept-Ranges": "bytes"})
            return
        first, last = asked.groups()
        if not first:
            first, last = max(0, len(content) - int(last)), len(content) - 1
        first, last = int(first), min(int(last or len(content) - 1), len(content) - 1)
        if first > last:
            self._send(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                kind,
                b"",
                {"Content-Range": f"bytes */{len(content)}"},
            )
            return
        part = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        self._send(HTTPStatus.PARTIAL_CONTENT, kind, content[first : last + 1], part)

    def _is_allowed(self):
        """Whether the request names this machine, where only this machine is served: other names may be a trick."""
        host = re.sub(r":\d+$", "", self.headers.get("Host", ""))
        if self.is_local and host not in LOCAL:
            self.close_connection = True
            self._refuse(HTTPStatus.BAD_REQUEST, "unknown host")
            return False
        return True

    def _refuse(self, status, message):
        self._send(status, "application/json", json.dumps({"error": message}).encode())

    def _send(self, status, kind, content, headers=()):
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-cache",
            "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            **dict(headers),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Say nothing of each request: the terminal is for the address."""
