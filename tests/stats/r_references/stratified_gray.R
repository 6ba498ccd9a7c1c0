# Gray's test within strata by cmprsk, on the simulated cohort of ../reference/months.csv (Debian: r-cran-cmprsk).
#   Rscript stratified_gray.R > stratified_gray.json
suppressMessages({library(cmprsk); library(survival)})
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
d <- read.csv(file.path(here, "../reference/months.csv"))
by_z <- cuminc(d$months, d$state, d$group, strata = d$z)$Tests[1, ]
lost <- d[!(d$z == 1 & d$group %in% c(0, 3)), ]   # groups that are not in every stratum
part <- cuminc(lost$months, lost$state, lost$group, strata = lost$z)$Tests[1, ]
lr <- survdiff(Surv(months, state == 1) ~ group + strata(z), d)$chisq
cat(sprintf('{"by_z": [%.10f, %.10f], "part": [%.10f, %.10f], "log_rank": %.10f}\n', by_z[1], by_z[2], part[1], part[2], lr))
