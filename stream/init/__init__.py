"""`driftline init`: look at a topic and propose a `driftline.yaml`."""
