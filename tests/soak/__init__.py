"""A long run: the same random training steps again and again, with equal results and flat memory.

``make soak MINUTES=120`` runs it.
"""
