"""Snapshots: files that every node starts from, in an archive, each with its checksum."""
