"""External validation: a locked scheme or model on patients that took no part in it, without refitting."""
