"""Self-contained HTML pages: what `driftline report` and `driftline tune` write."""
