"""Memory layouts that kernels, and the fake kernels used by compilers, have to handle."""


def column_major(value):
    """The same values, with matrices stored column by column."""
    return value.mT.contiguous().mT if value.ndim > 1 else value
