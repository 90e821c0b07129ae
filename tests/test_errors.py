"""Errors of users are built-in errors as well, and print their message as it is."""

import errno
import os
import pickle

import pytest
from torch.utils.data import DataLoader, Dataset

from mmseg_m2f.errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingFileError,
    ResourceError,
    UnknownNameError,
    UserError,
    explain_os_error,
    message_of,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (InvalidValueError, ValueError),
        (InvalidTypeError, TypeError),
        (UnknownNameError, KeyError),
        (MissingFileError, FileNotFoundError),
        (ResourceError, RuntimeError),
    ],
)
def test_user_error__is_the_builtin_one_and_travels_between_processes(
    error: type[UserError], builtin: type[Exception]
) -> None:
    raised = pickle.loads(pickle.dumps(error("a: expected 'b'.")))
    assert isinstance(raised, builtin)
    assert isinstance(raised, UserError)
    assert str(raised) == "a: expected 'b'."


class Faulty(Dataset):
    """Raises an error from another one, in a data worker."""

    def __init__(self, error: type[UserError]) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> object:
        try:
            raise OSError("SomeError: of a decoder")
        except OSError as cause:
            raise self.error("Label a.png: expected b.\nGot c: Error: d.") from cause


@pytest.mark.parametrize("error", [InvalidValueError, InvalidTypeError, UnknownNameError, MissingFileError])
def test_message_of__a_data_worker(error: type[UserError]) -> None:
    with pytest.raises(error) as raised:
        next(iter(DataLoader(Faulty(error), num_workers=1, multiprocessing_context="fork")))
    assert "Traceback" in str(raised.value)
    assert message_of(raised.value) == "Label a.png: expected b.\nGot c: Error: d."


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "disk is full.*another folder"),
        (errno.EROFS, "read-only.*--work-dir"),
        (errno.EACCES, "permission denied"),
        (errno.EMFILE, "ulimit -n.*num_workers=0"),
        (errno.EFBIG, "ulimit -f"),
    ],
)
def test_explain_os_error__names_file_and_remedy(number: int, remedy: str) -> None:
    with pytest.raises(OSError, match=rf"^run/a.png \(working directory .*\): .*{remedy}"):
        raise OSError(explain_os_error(OSError(number, os.strerror(number), "run/a.png")))
    assert explain_os_error(OSError("a decoder's own")) is None
