"""Errors that tell a user what to change: where, what was expected, what was found, and what to do.

The command line prints their message alone. All other errors are faults of the program and keep their traceback.
"""


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
