"""The whole analysis of a cohort: does the number of AI-ENE nodes add to existing staging groups?

records.py      settings of the user, and what an analysis consists of
cohort.py       who is analysed, and who is not and why
grouping.py     marker classes, old groups, combined groups
design.py       coding of the covariates
descriptives.py    flow, table 1, missing data
survival.py     curves of survival and incidence, and their tests
regression.py, marker_effect.py    Cox, Fine-Gray, proportional hazards; forms of the count, interaction
model_comparison.py, incremental_value.py    old staging against old staging with AI-ENE
derive/         cut-offs from the data, and their validation
sensitivity/    subgroups and centres; imputed and further covariates, time
locked_model.py    models as signed files for other cohorts
threshold_sensitivity.py    counts and groups at other ENE thresholds
charts/         drawings of the figures
text.py, output.py    methods text, checklists, key results; an analysis as files
report_items.toml    titles, columns, notes and legends of tables and figures
run.py          the whole analysis in one call
"""
