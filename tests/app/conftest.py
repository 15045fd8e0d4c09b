"""The app, served to tests in their own process."""

import threading
import time

import pytest


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Where an app over the runs in `tmp_path` is served."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / ".app" / "served"))
    import uvicorn

    from rcv.app.server import HOST, listening_socket, make_app

    server = uvicorn.Server(
        uvicorn.Config(make_app(tmp_path), log_level="warning", timeout_graceful_shutdown=1)
    )
    with listening_socket(HOST, 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        yield f"http://{HOST}:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()
