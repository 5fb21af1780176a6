"""Benchmarks of the losses: what is timed, what it is compared with, and the command
``python -m contrastloss bench`` that runs it. Importing this package imports none of its modules.
"""
