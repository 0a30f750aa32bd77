"""What a machine does to a program: a full disk, a disk that fails, a clock that jumps, an end at a chosen moment.

A test that asks for what this machine does not let it have is skipped, and says so.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).with_name("faulty_libc.c")
#: struct control of faulty_libc.c
FIELDS: Final = ("wall_offset_s", "failing_syncs", "steps", "kill_at")
PIECE: Final = bytes(64 * 1024)


class FaultyLibc:
    """Stands between a program and its libc; what is set here is felt by the running program, at its next call."""

    def __init__(self, folder: Path) -> None:
        control = folder / "faulty-libc"
        control.write_bytes(bytes(8 * len(FIELDS)))
        with control.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": str(_compiled(folder)), "FAULTY_LIBC": str(control)}
        """Of the program."""

    def set(self, field: str, value: int) -> None:
        """From now on."""
        struct.pack_into("l", self._shared, 8 * FIELDS.index(field), value)

    def get(self, field: str) -> int:
        """Now."""
        value: int = struct.unpack_from("l", self._shared, 8 * FIELDS.index(field))[0]
        return value


def _compiled(folder: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make the faulty libc with")
    library = folder / "faulty_libc.so"
    flags = ("-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-D_GNU_SOURCE")
    subprocess.run([compiler, *flags, "-o", str(library), str(SOURCE)], check=True)
    return library


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A disk of so many MiB."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", str(disk)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free; returns the file that has to go again."""
    filler = disk / "somebody-elses"
    with filler.open("wb", buffering=0) as file:
        for piece in (PIECE, PIECE[:512]):
            try:
                while file.write(piece):
                    pass
            except OSError:
                continue
    assert os.statvfs(disk).f_bavail == 0
    return filler


class ProcessLimit:
    """A group of processes of which there may be so many, threads included (cgroup, version 1 or 2)."""

    def __init__(self, group: Path) -> None:
        self._group = group

    def add(self, *pids: int) -> None:
        """These, and whatever they start from now on."""
        for pid in pids:
            (self._group / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """Nothing may be started."""
        (self._group / "pids.max").write_text("1")

    def set_room(self, room: int | None) -> None:
        """So many more may be started; None: any number."""
        now = int((self._group / "pids.current").read_text())
        (self._group / "pids.max").write_text("max" if room is None else str(now + room))


@contextmanager
def process_limit() -> Iterator[ProcessLimit]:
    """It is gone when the last of its processes is."""
    root = Path("/sys/fs/cgroup")
    parent = root / "pids" if (root / "pids").is_dir() else root
    group = parent / f"penstock-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"processes cannot be limited here: {error}")
    try:
        if not (group / "pids.max").exists():
            pytest.skip("processes cannot be limited here: the controller pids is not delegated to us")
        yield ProcessLimit(group)
    finally:
        deadline_s = time.monotonic() + 5
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        group.rmdir()
