"""The verbs of `depot`, one module per group: parse, ask the server, show the answer."""
