"""What the fleet knows, in SQLite or PostgreSQL: tables, transactions, a module for each concern.

Every function of the concerns takes the `Transaction` it works in, and `Database.run` is the one
way to get one. What sleds are to hold is changed through `Transaction.write` alone, which raises
the generation with it (F3).
"""
