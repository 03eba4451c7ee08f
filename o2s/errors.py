"""The error for mistakes that a user can mend."""


class InputError(ValueError):
    """A file or an option is wrong.

    The message is one complete line for a person: which file or option, what was found, and what
    was expected. Commands print it and exit with code 2, without a traceback.
    """

    def __init__(self, message: str) -> None:
        if message.startswith(_FROM_A_WORKER):  # torch's, around the one of ours at its end
            message = message.strip().rpartition(f"{type(self).__name__}: ")[2]
        super().__init__(message)


_FROM_A_WORKER = "Caught InputError in DataLoader worker"


def first_line(error: Exception) -> str:
    """What another library says went wrong, or at least the kind of its error."""
    text = (getattr(error, "strerror", None) or str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__
