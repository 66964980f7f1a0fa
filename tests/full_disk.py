"""A disk without room, for tests of what writes files; no rights are needed for it."""

import ctypes
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

CLONE_NEWNS, CLONE_NEWUSER, MS_REMOUNT = 0x20000, 0x10000000, 32  # of <sched.h> and <sys/mount.h>


def on_full_disk(folder: Path, room: int, run: Callable[[str, Callable[[], object]], None]) -> None:
    """
    Call `run` in a forked process in which `folder` is a disk of `room` bytes; without Linux' namespaces, no file of
    that process can be larger. `run` is given the system's words for a full disk, and what makes room on it.
    """
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        with os.fdopen(reading) as pipe:
            told = pipe.read()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, told
        return
    code = 1
    try:
        torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
        make_room = mounted(folder, room)
        run("No space left on device" if make_room else "File too large", make_room or limited(room))
        code = 0
    except BaseException:
        os.write(writing, traceback.format_exc().encode())
    finally:
        sys.stdout.flush()
        os._exit(code)


def mounted(folder: Path, room: int) -> Callable[[], object] | None:
    """Mount a disk in memory where only this process sees it; what makes it larger, or `None` where that is barred."""
    libc, users = ctypes.CDLL(None), (os.getuid(), os.getgid())

    def mount(flags: int, size: int) -> int:
        return int(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode()))

    if not hasattr(libc, "unshare") or libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
        return None
    try:
        Path("/proc/self/setgroups").write_text("deny")
        for kind, number in zip(("uid", "gid"), users, strict=True):
            Path(f"/proc/self/{kind}_map").write_text(f"0 {number} 1")
    except OSError:
        return None
    return None if mount(0, room) != 0 else lambda: mount(MS_REMOUNT, 16 << 20)


def limited(room: int) -> Callable[[], object]:
    """Let this process write no longer files; what lets it again."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


__all__ = ["on_full_disk"]
