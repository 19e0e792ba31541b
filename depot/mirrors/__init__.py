"""The datasets of a store together: which are there, and which copies can be trusted."""
