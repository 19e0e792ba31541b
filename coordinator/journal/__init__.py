"""The journal: what happened in the fleet, in an order that nobody can change unseen.

`tree`, `proofs`, `notes` and `checkpoints` are pure: they decide, and never wait.
"""
