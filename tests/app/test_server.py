"""What `rcv app` says when it cannot serve."""

import socket
import sys

import pytest

from rcv.app.server import HOST, listening_socket, serve


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    for name in (
        "GRADIO_ANALYTICS_ENABLED",
        "GRADIO_TEMP_DIR",
    ):  # set by serving; back as they were afterwards
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install 'rcv-video\[app\]'"):
        serve(tmp_path / "runs", 0)
    assert not (tmp_path / "runs").exists()


def test_a_taken_port_is_named():
    with (
        socket.create_server((HOST, 0)) as taken,
        pytest.raises(OSError, match=f"port {taken.getsockname()[1]} of 127.0.0.1 cannot be had"),
    ):
        listening_socket(HOST, taken.getsockname()[1])
