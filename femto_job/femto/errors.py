"""The one exception that femto raises for bad input."""


class LaffError(ValueError):
    """Bad input: a picture, an archive or an option that femto cannot use.

    The message is one line that says what is wrong and what to do about it.
    """
