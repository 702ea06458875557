"""What in a message is a PIN or a key, and what of the message may be shown. Pure."""
