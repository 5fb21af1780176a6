"""A fuzzer: calls that nobody wrote down, against dense formulas in fp64.

``make fuzz SECONDS=600`` runs a campaign.
"""
