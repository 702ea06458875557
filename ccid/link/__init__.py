"""One CCID interface: commands go out, replies come back, and cards come and go meanwhile."""
