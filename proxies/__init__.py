"""Zero-cost proxies: scores of untrained networks, one per file."""
