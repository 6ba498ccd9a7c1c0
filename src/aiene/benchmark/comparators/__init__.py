"""What can be compared: one small protocol, one adapter a file."""
