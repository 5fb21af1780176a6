"""A fuzzer: random calls, compared with dense formulas in fp64.

``make fuzz SECONDS=600`` runs a campaign.
"""
