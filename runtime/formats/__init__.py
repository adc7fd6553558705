"""Annotation formats; each reader turns its own into a COCO dict with nothing missing."""
