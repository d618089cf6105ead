"""What can go wrong for a user, told in one line without a traceback; exit statuses as in
docs/operations.md.
"""

# 75 is EX_TEMPFAIL of sysexits.h; 1 with a traceback is what nobody foresaw, and with one line a
# comparison lost.
EXIT_OK, EXIT_REGRESSION, EXIT_USER_ERROR, EXIT_RETRY = 0, 1, 2, 75


class DenseclError(Exception):
    """A mistake in params, data or files; the message says what was found, what was expected and
    what to do.
    """

    status = EXIT_USER_ERROR


class DataError(DenseclError):
    """A data set that cannot be used: a missing folder, an empty class, a label outside the class
    list.
    """


class RetryLater(DenseclError):
    """An end before its time that is nobody's mistake: the same command goes on from what is
    kept.
    """

    status = EXIT_RETRY


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM asks to stop; no Exception, so that nothing takes it for a failure of its
    own and goes on.
    """


class RegressionFound(DenseclError):
    """What `compare --fail-if-worse` ends with where B is worse than A; the message is the
    verdict.
    """

    status = EXIT_REGRESSION
