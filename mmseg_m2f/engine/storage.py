"""Writing checkpoints so that an interrupted run leaves none half-written."""

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend


class AtomicBackend(LocalBackend):
    """Local files, each of which appears complete or not at all. Chosen by `backend="mmseg_m2f.atomic"`."""

    def put(self, obj: bytes, filepath: str | os.PathLike[str]) -> None:
        """Write `obj` beside the file, then put it in the file's place."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            unfinished.write_bytes(obj)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


register_backend("mmseg_m2f.atomic", AtomicBackend)
