"""Write the manifest of the kernels that a build holds: which source, and the hash of its text.

Usage: manifest.py OUTPUT [SOURCE.cu ...]
"""

import hashlib
import json
import sys
from pathlib import Path


def manifest(sources):
    """Return the manifest as a dict: {"kernels": {stem: {"source": name, "sha256": hex}}}."""
    kernels = {}
    for source in sorted(map(Path, sources)):
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        kernels[source.stem] = {"source": source.name, "sha256": digest}
    return {"kernels": kernels}


if __name__ == "__main__":
    output, *sources = sys.argv[1:]
    Path(output).write_text(json.dumps(manifest(sources), indent=2) + "\n")
