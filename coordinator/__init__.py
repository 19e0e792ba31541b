"""The fleet: releases, the database, replication, the API and the command line of a coordinator."""
