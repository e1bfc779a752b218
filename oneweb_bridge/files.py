"""Files that a user names: what to say of one that cannot be used."""


def refusal_of(error: OSError | ValueError) -> str:
    """Why a file cannot be used, in the system's words. Python says a ValueError of a name with a NUL in it."""
    return getattr(error, "strerror", None) or "not a file name"
