"""The error for mistakes that a user can mend."""


class InputError(ValueError):
    """A file or an option is wrong.

    The message is one complete line for a person: which file or option, what was found, and what
    was expected. Commands print it and exit with code 2, without a traceback.
    """
