"""The app's page: a tab for finetuning, one for generating, one for comparing."""

import gradio

from rcv.app.finetune_tab import add_finetune_tab
from rcv.app.generate_tabs import add_compare_tab, add_generate_tab

CSS = """
video { image-rendering: pixelated; }
#strips figure { margin: 0 0 0.6em; }
#strips img { max-width: 100%; }
#strips figcaption { font-size: 0.85em; }
#problems { border-left: 4px solid #c0392b; padding-left: 0.8em; }
"""
KEEP_SERVED = (3600, 86400)
"""Seconds between looks at the copies that are served, and their age when they go."""


def make_page(runs):
    """Return the page over some Runs, as gradio.Blocks."""
    with gradio.Blocks(title="rcv", analytics_enabled=False, delete_cache=KEEP_SERVED) as page:
        gradio.Markdown(f"# rcv\nFew-shot text-to-video. Runs and videos are in `{runs.folder}`.")
        with gradio.Tab("Finetune"):
            add_finetune_tab(page, runs)
        with gradio.Tab("Generate"):
            add_generate_tab(page, runs)
        with gradio.Tab("Compare"):
            add_compare_tab(page, runs)
    return page
