"""What a run leaves: records of cases, tables, masks on the native CT, provenance."""
