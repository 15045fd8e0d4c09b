"""The app, served to tests in their own process."""

import threading
import time

import pytest


@pytest.fixture
def address(tmp_path):
    """Where an app over the runs in `tmp_path` is served."""
    import uvicorn

    from rcv.app.server import HOST, listening_socket, make_app

    server = uvicorn.Server(uvicorn.Config(make_app(tmp_path), log_level="warning"))
    with listening_socket(HOST, 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        yield f"http://{HOST}:{listening.getsockname()[1]}"
        server.should_exit = server.force_exit = True
        thread.join()
