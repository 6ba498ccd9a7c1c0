"""Statistics of survival with and without competing events, on arrays: no files, no tables of patients.

Every function says in its docstring which input it refuses (`UsageError`) and what the data may be too poor
for (`NotEstimableError`, whose text is the sentence to show). Results are frozen records. The same seed
gives the same bits.
"""
