"""The loop with an archive: receive, queue, run, export, send back; pull, push and status."""
