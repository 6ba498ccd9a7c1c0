# Brier scores with standard errors and their difference, death competing, by riskRegression (conservative: the
# censoring curve taken as known), on the simulated cohort of ../reference/months.csv (Debian: r-cran-riskregression).
#   Rscript brier_errors.R > brier_errors.json
suppressMessages({library(riskRegression); library(survival); library(prodlim)})
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
d <- read.csv(file.path(here, "../reference/months.csv")); d$time <- d$months / 12
s <- Score(list(a = matrix(d$risk, ncol = 1), b = matrix(d$group / 4, ncol = 1)), formula = Hist(time, state) ~ 1,
           data = d, times = 3.5, cause = 1, metrics = "brier", conservative = TRUE, se.fit = TRUE, cens.model = "km",
           contrasts = list(c(1, 2)), null.model = FALSE)$Brier
row <- function(x) paste(sprintf("%.10f", x), collapse = ", ")
cat(sprintf('{"score": [%s], "lower": [%s], "upper": [%s],\n "difference": [%s]}\n', row(s$score$Brier), row(s$score$lower),
            row(s$score$upper), row(unlist(s$contrasts[1, c("delta.Brier", "lower", "upper", "p")]))))
