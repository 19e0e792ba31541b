"""How an artifact gets out, with only checked bytes where that is due."""
