"""Names in a message."""


def listed(names, most):
    """The first `most` of a list of names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
