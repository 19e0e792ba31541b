"""What a process knows, in memory: tables of immutable rows that change together."""
