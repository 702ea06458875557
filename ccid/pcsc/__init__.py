"""Faces towards PC/SC: an IFD handler, and the driver that pcscd loads."""
