"""Bytes to objects and back, each structure declared once: descriptors and messages. Pure."""
