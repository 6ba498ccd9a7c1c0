"""From AI-ENE node counts to risk groups: tables, staging, schemes, survival.

    table/       the canonical table: reading, checks, endpoints
    importers/   public collections and own tables -> canonical table
    staging/     AJCC/UICC editions 7, 8 and version 9, RTOG-0129, as numbered decision tables
    schemes/     what makes combined groups of a base group and a node count: data, not code
    stratify.py  canonical table + scheme -> one row per patient with every intermediate step
    join.py      the count of a run, joined on the patient
    simulate/    cohorts with known hazards
    analyse/     the whole analysis and its report

Research software, not a medical device.
"""
