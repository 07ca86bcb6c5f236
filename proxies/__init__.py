"""Zero-cost proxies: scores of untrained networks. None is included yet; the entry-point group is `nasharness.proxies`."""
