"""Physics stages: bodies on joints, free particles, impacts, roll-outs."""
