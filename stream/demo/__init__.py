"""`driftline demo`: a year of flights through a real broker."""
