"""From the official files to columns: one converter per benchmark family."""
