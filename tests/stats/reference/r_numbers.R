# Numbers of R for the tests beside this script; see cohorts.py for the call.
suppressMessages({library(survival); library(cmprsk); library(prodlim); library(riskRegression)})
folder <- commandArgs(trailingOnly = TRUE)[1]
rows <- list()
put <- function(name, values) {
  for (i in seq_along(values)) rows[[length(rows) + 1]] <<- data.frame(
    name = if (length(values) > 1) paste(name, i) else name, value = sprintf("%.15g", values[i]))
}
d <- read.csv(file.path(folder, "months.csv"))
d$time <- d$months / 12
d$event <- as.integer(d$state == 1)
horizons <- c(1, 2, 3.5, 5)

# reverse Kaplan-Meier: every event censors
follow <- survfit(Surv(time, state == 0) ~ 1, data = d, conf.type = "log-log")
put("follow-up", summary(follow)$table[c("median", "0.95LCL", "0.95UCL")])
put("follow-up quartiles", as.numeric(quantile(follow, c(0.25, 0.75), conf.int = FALSE)))

# C of the ordered groups as they are named; Uno's with survival's n/G2 (G just before the event)
for (score in c("group", "risk")) {
  f <- as.formula(paste("Surv(time, event) ~", score))
  put(paste("C of", score), concordance(f, d, reverse = TRUE)$concordance)
  put(paste("Uno C of", score), concordance(f, d, reverse = TRUE, timewt = "n/G2")$concordance)
  put(paste("Uno C to 4.99 years of", score),
      concordance(f, d, reverse = TRUE, timewt = "n/G2", ymax = 4.99)$concordance)
}
parts <- concordance(Surv(time, event) ~ group + strata(z), d, reverse = TRUE)
put("C of group within z", parts$concordance)

# AUC and Brier score: riskRegression::Score, cens.model "km": G(T-) for events, G(t) for those beyond
scored <- function(name, formula, data, cause, predicted) {
  s <- Score(list(m = matrix(rep(predicted, length(horizons)), ncol = length(horizons))), formula = formula,
             data = data, times = horizons, metrics = c("auc", "brier"), cens.model = "km", conf.int = FALSE,
             cause = cause)
  put(paste("AUC", name), s$AUC$score[model == "m"]$AUC)
  put(paste("Brier", name), s$Brier$score[model == "m"]$Brier)
  put(paste("Brier of no model", name), s$Brier$score[model == "Null model"]$Brier)
}
scored("of risk", Surv(time, event) ~ 1, d, 1, d$risk)
scored("of group", Surv(time, event) ~ 1, d, 1, d$group / 4)
scored("of risk, competing", Hist(time, state) ~ 1, d, 1, d$risk)
scored("of group, competing", Hist(time, state) ~ 1, d, 1, d$group / 4)
scored("of one half", Surv(time, event) ~ 1, d, 1, rep(0.5, nrow(d)))

# absolute risk of Cox's model, baseline with Efron's ties as its likelihood
fit <- coxph(Surv(time, event) ~ x + z, data = d, ties = "efron", x = TRUE)
put("Cox coefficients", coef(fit))
base <- basehaz(fit, centered = FALSE)
put("Cox baseline hazard", approx(c(0, base$time), c(0, base$hazard), horizons, method = "constant")$y)
predicted <- predictRisk(fit, newdata = d, times = 2)
observed <- 1 - summary(survfit(Surv(time, event) ~ 1, data = d), times = 2)$surv
put("mean predicted at 2 years", mean(predicted))
put("observed over expected at 2 years", observed / mean(predicted))

# medians: the curve touches 0.5, by survfit's table
touching <- list(c(1, 1, 0, 1), c(1, 1, 0, 0), c(1, 1, 1, 1))
for (i in seq_along(touching)) {
  put(paste("median touching", i), summary(survfit(Surv(1:4, touching[[i]]) ~ 1))$table["median"])
}

# no event among 17, and among 9 of whom three had the other event
put("exact lower limit of 17", binom.test(17, 17)$conf.int[1])
put("exact upper limit of 9", binom.test(0, 9)$conf.int[2])

# four patients: the second has no imaging after year 1 and dies at 2.5; metastasis of the first at 2
put("four patients, death at its own time",
    timepoints(cuminc(c(2, 2.5, 1.5, 4), c(1, 2, 0, 0)), 3)$est[1, 1])
put("four patients, censored at the last imaging",
    timepoints(cuminc(c(2, 1, 1.5, 4), c(1, 0, 0, 0)), 3)$est[1, 1])

# anchors 10 to 12
for (cohort in c("lung", "whas500")) {
  e <- read.csv(file.path(folder, paste0(cohort, ".csv")))
  times <- if (cohort == "lung") c(180, 365) else c(7, 31, 90, 180, 365, 1000, 2000)
  put(paste(cohort, "C"), concordance(Surv(time, event) ~ risk, e, reverse = TRUE)$concordance)
  put(paste(cohort, "Uno C"), concordance(Surv(time, event) ~ risk, e, reverse = TRUE, timewt = "n/G2")$concordance)
  for (tau in if (cohort == "lung") 365.25 else c(399.5, 1499.5)) {
    put(paste(cohort, "Uno C to", tau),
        concordance(Surv(time, event) ~ risk, e, reverse = TRUE, timewt = "n/G2", ymax = tau)$concordance)
  }
  s <- Score(list(m = matrix(rep(plogis(e$risk - mean(e$risk)), length(times)), ncol = length(times))),
             formula = Surv(time, event) ~ 1, data = e, times = times, metrics = "auc", cens.model = "km",
             conf.int = FALSE)
  put(paste(cohort, "AUC"), s$AUC$score[model == "m"]$AUC)
}
write.csv(do.call(rbind, rows), stdout(), row.names = FALSE, quote = TRUE)
