"""From a native CT to the exact input of the networks, and the way back."""
