"""What can go wrong for a user, told in one line without a traceback."""


class DenseclError(Exception):
    """A mistake in params, data or files; the message says what was found, what was expected and what to do."""


class DataError(DenseclError):
    """A data set that cannot be used: a missing folder, an empty class, a label outside the class list."""
