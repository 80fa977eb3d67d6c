"""The one exception that is shown to users as a plain sentence."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one sentence: which file, which line, what is wrong and what to do. Commands print it
    and exit with status 1, without a traceback.
    """
