"""The agent's configuration: what it may say, and every mistake in it at once.

`settings` has the models, `units` the spellings of sizes, durations and addresses; `loading` merges
the file with the environment and reports mistakes by line or variable.
"""
