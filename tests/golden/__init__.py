"""Recorded outputs of every loss, bit by bit, for changes that are to change none."""
