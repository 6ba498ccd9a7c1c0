"""The charts of an analysis: each a pure function from plain numbers to a drawing."""
