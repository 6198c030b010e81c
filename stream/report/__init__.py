"""What a replay found: in the terminal, and as a page."""
