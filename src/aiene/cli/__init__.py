"""The command line: one module per command, each a few lines of glue over a public function."""
