"""Cut-offs and groups from the data, and what they are worth on patients that did not choose them."""
