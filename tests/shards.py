"""Tar shards for tests."""

import io
import tarfile
from pathlib import Path


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> str:
    """An archive of these members, compressed as `mode` of `tarfile` says; its path."""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)
