"""Errors that tell a user what to change: where, what was expected, what was found, and what to do.

The command line prints their message alone. All other errors are faults of the program and keep their traceback.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Base class of all of them. Raise one of the subclasses, each of which is also the matching built-in error."""

    def __str__(self) -> str:
        """The message as it was given; `KeyError` would put it in quotes."""
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class InvalidValueError(UserError, ValueError):
    """A value, or several together, that cannot be used."""


class InvalidTypeError(UserError, TypeError):
    """A value of the wrong type, or an argument that does not exist."""


class UnknownNameError(UserError, KeyError):
    """A name that nothing is registered or stored under."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that does not exist."""


class NonFiniteError(UserError, ValueError):
    """A NaN or an infinite number where only finite ones are of use."""


class ResourceError(UserError, RuntimeError):
    """The machine lacks something: shared memory, disk space, open files, permissions."""


_IN_WORKER = re.compile(r"Caught \w+ in .*worker.*\.\nOriginal Traceback.*^[\w.]*Error: ", re.DOTALL | re.MULTILINE)
_OS_REMEDIES = {
    errno.ENOSPC: "the disk is full; expected room for the file. Free some, or take another folder (--work-dir, --out)",
    errno.EDQUOT: "the disk quota is used up; expected room for the file. Free some, or choose another folder",
    errno.EFBIG: "the file is larger than the limit of the shell or the disk. Raise it (`ulimit -f unlimited`)",
    errno.EROFS: "the disk is read-only; expected a folder to write to. Choose another one (--work-dir, --out)",
    errno.EACCES: "permission denied. Change the file's permissions, or choose another folder (--work-dir, --out)",
    errno.EPERM: "operation not permitted. Change the file's permissions, or choose another folder (--work-dir, --out)",
    errno.EMFILE: "too many files are open. Raise the limit (`ulimit -n 65536`), or set num_workers=0",
    errno.ENFILE: "too many files are open on this machine. Close programs, or set num_workers=0",
    errno.ENOMEM: "memory is used up. Take a smaller batch or fewer workers (num_workers=0)",
}


def message_of(error: UserError) -> str:
    """The message as it was raised: a data worker sends its whole traceback along."""
    return _IN_WORKER.sub("", str(error)).rstrip()


def explain_os_error(error: OSError) -> str | None:
    """File and remedy for a fault of disk, permissions or limits; None for other faults."""
    remedy = _OS_REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    return f"{error.filename or 'A file'} (working directory {os.getcwd()}): {remedy}."


@contextmanager
def concise_errors() -> Iterator[None]:
    """End the program with the message alone (exit status 2) where this package raised an error on purpose.

    It may come from a data worker. Faults of disk, permissions and limits end with file and remedy. Any other error
    keeps its traceback.
    """
    try:
        yield
    except UserError as error:
        print(f"Error: {message_of(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        message = explain_os_error(error)
        if message is None:
            raise
        print(f"Error: {message}", file=sys.stderr)
        raise SystemExit(2) from None
