"""Triton's interpreter in a third of its time, with ``TRITON_INTERPRET=1``.

The interpreter replaces the functions of ``triton.language`` by its own, in what a kernel's module
refers to, and does so again for each call from a kernel. That was two thirds of the time of the
tests. Here it does so once in a launch for each module.
"""

from contrastloss.backends import triton


def pytest_configure():
    if triton.missing() is not None or not triton.interpreted():
        return
    from triton.runtime import interpreter

    replace, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    done = set()  # the modules of this launch, by the identity of their names

    def begin(executor, *args, **kwargs):
        done.clear()  # the end of a launch puts the functions back
        return launch(executor, *args, **kwargs)

    def once(function):
        module = id(function.__globals__)
        if module in done:
            return None
        done.add(module)
        return replace(function)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = once, begin
