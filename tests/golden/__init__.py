"""Recorded outputs of every loss, compared bit by bit, for changes that must not change any."""
