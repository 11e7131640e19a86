"""Files that are either the old ones or the new ones, never half of either.

The new content goes to a temporary file in the same directory, is synchronised to the disk and then takes the name over
in one step (POSIX rename). When anything fails, the temporary file is removed and the old content stays.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from dvc.errors import UserError

_REMEDY = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some of your quota on that disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "choose a directory on a disk that can be written",
    errno.EACCES: "choose a directory that you may write to",
    errno.EPERM: "choose a directory that you may write to",
    errno.EEXIST: "a file is in the way, choose another directory",
    errno.ENOTDIR: "a file is in the way, choose another directory",
    errno.ENOENT: "choose a directory on a disk that can be written",
}


def write_error(path: Path | str, error: OSError, kept: str = "") -> UserError:
    """The one line that a user reads when a file cannot be written; `kept` says what stays usable."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    remedy = _REMEDY.get(error.errno or 0, "check the directory and the disk")
    return UserError(f"cannot write {path}: {reason};{f' {kept};' if kept else ''} remedy: {remedy}, then run again")


def sync_directory(directory: Path) -> None:
    """Make a rename durable. File systems that cannot synchronise a directory are left alone."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` when the block ends without an error.

    Raises: whatever the block raises, after the temporary file has been removed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def write_file(path: Path | str, content: bytes | str, kept: str = "") -> Path:
    """Write a whole file in one step. Text is UTF-8.

    Raises: UserError when it cannot be written (disk full, no permission); the old file is then still there.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            file.write(data)
            file.flush()
    except OSError as error:
        raise write_error(path, error, kept) from error
    return Path(path)
