"""The alert stage: verdicts become alerts that fire and resolve."""
