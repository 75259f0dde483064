"""Durable file operations; every failure names the path."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from domain.errors import SnapshotError


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a SnapshotError that names the file."""
    try:
        yield
    except OSError as error:
        where = error.filename if error.filename is not None else path
        raise SnapshotError(f"{where}: {error.strerror or error}") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Put `text` in the place of a file: readers see all of the old or all of the new."""
    aside = path.with_name(f".{path.name}-new")
    aside.write_text(text, encoding="utf-8")
    sync(aside)
    aside.rename(path)
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Delete a folder and what is in it; nothing happens when it is gone already."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; waits for whoever has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """Take a lock between processes and return what must be closed to give it back.

    None when somebody else holds it. The operating system gives it back when a process dies.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
