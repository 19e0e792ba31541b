"""How an artifact gets in: admission, the stream, the commit."""
