"""What femto raises for bad input, and texts that a terminal may show."""


def printable(text: str) -> str:
    """A text for one line of a terminal or report, whatever characters or bytes it is made of:
    what does not print (line breaks, escapes, marks that turn the direction) is written out."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class LaffError(ValueError):
    """Bad input: a picture, an archive or an option that femto cannot use.

    The message is one line that says what is wrong and what to do about it. It is printable, also
    where it quotes what a file says of itself.
    """

    def __init__(self, message: str):
        super().__init__(printable(str(message)))


class JobError(Exception):
    """A job as a whole cannot go on. The message is one line: what is wrong, what to do."""
