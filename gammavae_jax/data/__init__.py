"""Turn recordings, in folders or archives, into log-mel arrays."""
