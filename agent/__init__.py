"""The per-node daemon: the sled agent API, peer copies, background duties and the command line."""
