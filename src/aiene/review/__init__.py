"""The review in the browser: a run's cases looked at, their contours mended, and at once measured again."""
