"""`driftline tune`: one pass over events, then hundreds of configurations over its panes."""
