"""The local app: clips, finetuning, generation and comparison in a browser. Needs the extra `app` (Gradio)."""

from rcv.app.server import serve

__all__ = ["serve"]
