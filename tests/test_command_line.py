"""Errors that end a tool with their message alone."""

import errno

import pytest

from mmseg_m2f.errors import InvalidTypeError, InvalidValueError, MissingFileError, UnknownNameError, concise_errors


@pytest.mark.parametrize("error", [InvalidValueError, InvalidTypeError, UnknownNameError, MissingFileError])
def test_concise_errors__prints_our_message_alone(error: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, concise_errors():
        raise error("lr: expected a number, got 'x'.")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "Error: lr: expected a number, got 'x'.\n"


def test_concise_errors__leaves_other_errors_alone() -> None:
    with pytest.raises(ValueError, match=r"not ours"), concise_errors():
        raise ValueError("not ours")


def test_concise_errors__faults_of_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, concise_errors():
        raise PermissionError(errno.EACCES, "Permission denied", "/data/run")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: /data/run (working directory")
    assert "permission denied. Change" in said
    with pytest.raises(OSError, match="not the machine"), concise_errors():
        raise OSError("not the machine's")
