"""AI-ENE: from a head-and-neck CT to its lymph nodes and their probability of extranodal extension."""
