"""`driftline.yaml`: its models, how it is read, and what is wrong with it."""
