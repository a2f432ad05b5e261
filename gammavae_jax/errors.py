"""The one error that users are meant to read."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the thing (a file, a field, a machine) and
    the remedy. Command lines print it without a traceback and exit with status 2.
    """
