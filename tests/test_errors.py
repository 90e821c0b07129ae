"""Errors of users are built-in errors as well, and print their message as it is."""

import pickle

import pytest

from mmseg_m2f.errors import InvalidTypeError, InvalidValueError, MissingFileError, UnknownNameError, UserError


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (InvalidValueError, ValueError),
        (InvalidTypeError, TypeError),
        (UnknownNameError, KeyError),
        (MissingFileError, FileNotFoundError),
    ],
)
def test_user_error__is_the_builtin_one_and_travels_between_processes(
    error: type[UserError], builtin: type[Exception]
) -> None:
    raised = pickle.loads(pickle.dumps(error("a: expected 'b'.")))
    assert isinstance(raised, builtin)
    assert isinstance(raised, UserError)
    assert str(raised) == "a: expected 'b'."
