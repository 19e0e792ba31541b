"""The two commands: `sled-agent`, the daemon's own, and `depot`, which talks to running servers."""
