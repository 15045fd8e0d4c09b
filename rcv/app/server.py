"""The app's web server: on this machine alone, and its pages fetch nothing from anywhere else."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from rcv.app.runs import OWN_FOLDER

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
CONTENT_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; frame-ancestors 'none'; form-action 'self'"
)
"""Gradio's page runs scripts of its own that stand in the page; nothing may come from, or go to, another host."""


def serve(folder, port, ready=None):
    """Serve the app at http://127.0.0.1:PORT until it is interrupted; runs that it started go on.

    Parameters
    ----------
    folder : path
        Where runs, generated videos and uploaded clips go.
    port : int
    ready : callable, optional
        Called with the address once it is served.

    Raises
    ------
    ValueError
        Gradio is missing.
    OSError
        The port is taken (port 0: any that is free).
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    folder = Path(folder).expanduser().resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(folder / OWN_FOLDER / "served")
    try:
        import uvicorn

        app = make_app(folder)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"`rcv app` needs {error.name}, which the extra app brings: pip install 'rcv-video[app]'"
        ) from error
    with listening_socket(HOST, port) as listening:
        if ready is not None:
            ready(f"http://{HOST}:{listening.getsockname()[1]}")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listening])


def listening_socket(host, port):
    """Return a socket that listens at (host, port); OSError that names the port if it cannot be had."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise OSError(
            None, f"port {port} of {host} cannot be had ({error.strerror}); choose another one"
        ) from error


def make_app(folder):
    """Return the app over the runs in `folder`, as an ASGI application."""
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import PlainTextResponse

    from rcv.app.page import CSS, make_page
    from rcv.app.runs import Runs

    app = FastAPI()
    # a page elsewhere whose name was pointed at this machine has another host name
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=NAMES)

    @app.middleware("http")
    async def keep_to_this_host(request, call_next):
        # pages of other hosts have no business here
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).hostname not in NAMES:
            return PlainTextResponse("asked by a page of another host", status_code=403)
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = CONTENT_POLICY
        return response

    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gradio.mount_gradio_app(
        app,
        make_page(Runs(folder)),
        path="/",
        server_name=HOST,
        allowed_paths=[str(folder)],
        ssr_mode=False,
        footer_links=[],
        theme=gradio.themes.Default(**fonts),
        css=CSS,
    )
