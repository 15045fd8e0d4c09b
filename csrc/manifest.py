"""Write the manifest of the kernels that a build holds: where each is, what it needs, and the hashes of the sources.

Usage: manifest.py OUTPUT [SOURCE.cu | HEADER.cuh | CUBIN.json ...], where CUBIN.json is what build_kernel.py wrote
beside STEM.TARGET.
"""

import hashlib
import json
import sys
from pathlib import Path


def manifest(files):
    """Return the manifest as a dict.

    Returns
    -------
    dict
        ``{"kernels": {kernel: {"source": stem, "resources": {target: {...}}}}, "sources": {name: sha256}}``; resources
        are those of `cubin.kernels_of`.
    """
    kernels, sources = {}, {}
    for file in sorted(map(Path, files)):
        if file.suffix != ".json":
            sources[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
            continue
        stem, target, _ = file.name.split(".")
        for name, resources in json.loads(file.read_text()).items():
            found = kernels.setdefault(name, {"source": stem, "resources": {}})
            found["resources"][target] = resources
    return {"kernels": kernels, "sources": sources}


if __name__ == "__main__":
    output, *files = sys.argv[1:]
    Path(output).write_text(json.dumps(manifest(files), indent=2, sort_keys=True) + "\n")
