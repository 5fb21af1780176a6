"""Layouts of operands that a fake kernel has to know as well as the real one."""


def column_major(value):
    """A copy whose columns lie in memory one after another."""
    return value.mT.contiguous().mT if value.ndim > 1 else value.clone()
