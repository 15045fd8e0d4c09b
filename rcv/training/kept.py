"""Tensors that were computed once: in memory while they fit, on disk for later runs and other processes."""

from safetensors.torch import load, save

NAME = "tensor"


class KeptTensors:
    """CPU tensors under text keys.

    Parameters
    ----------
    disk : rcv.data.cache.Cache or None
        None: in memory alone.
    kind : str
        What they are and what made them; tells entries on disk apart.
    most_bytes : int
        How much is held in memory. What does not fit is read from the disk each time, or not kept.
    """

    def __init__(self, disk, kind, most_bytes):
        self.disk, self.kind = disk, kind
        self._memory, self._left = {}, most_bytes

    def __contains__(self, key):
        """Whether the tensor is in memory."""
        return key in self._memory

    def __len__(self):
        """How many are in memory."""
        return len(self._memory)

    def get(self, key):
        """Return the tensor under `key`, or None."""
        found = self._memory.get(key)
        if found is None and self.disk is not None:
            content = self.disk.read(f"{self.kind}: {key}")
            if content is not None:
                found = load(content)[NAME]
                self._hold(key, found)
        return found

    def keep(self, key, tensor):
        """Keep a CPU tensor under `key`."""
        if self.disk is not None:
            self.disk.write(f"{self.kind}: {key}", save({NAME: tensor.contiguous()}))
        self._hold(key, tensor)

    def _hold(self, key, tensor):
        if key not in self._memory and tensor.nbytes <= self._left:
            self._memory[key] = tensor
            self._left -= tensor.nbytes
