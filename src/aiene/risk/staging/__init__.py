"""AJCC/UICC editions 7 and 8, version 9, and RTOG-0129, as numbered decision tables."""
