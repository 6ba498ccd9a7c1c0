"""One file a format, each with its reader and its entry `FORMAT` in the table of `formats`."""
