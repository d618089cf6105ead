"""Errors that a user can act on, printed as one line without a traceback, and exit statuses.

0 done; 1 with a traceback: an unexpected error; 1 with one line: a regression found by `compare
--fail-if-worse`; 2 invalid input; 75 interrupted or refused for now: rerun the same command.
"""

# 75 is EX_TEMPFAIL of sysexits.h.
EXIT_OK, EXIT_REGRESSION, EXIT_USER_ERROR, EXIT_RETRY = 0, 1, 2, 75


class DenseclError(Exception):
    """Invalid params, data or files; the message says what was found, what was expected and what to
    do.
    """

    status = EXIT_USER_ERROR


class DataError(DenseclError):
    """A dataset that cannot be used: a missing folder, an empty class, an unknown label."""


class RetryLater(DenseclError):
    """Interrupted through no fault of the user; rerun the same command to resume."""

    status = EXIT_RETRY


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM was received. Not an Exception, so that no handler swallows it."""


class RegressionFound(DenseclError):
    """`compare --fail-if-worse` found B worse than A; the message is the summary."""

    status = EXIT_REGRESSION
