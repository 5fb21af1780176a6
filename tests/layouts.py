"""Layouts that kernels, and the fake kernels that compilers ask, have to know."""


def column_major(value):
    """The same values, with the columns of a matrix one after another in memory."""
    return value.mT.contiguous().mT if value.ndim > 1 else value
