"""Two processes that want the same datasets: the one that came first is not harmed (S3)."""
