"""One file an edition, each with its tables and its entry `EDITION`; see `risk.staging.stage`."""
