# Cox models with centres, delayed entry and hazards that change; weighted log-rank tests; a Fine-Gray interaction.
# On the simulated cohort of ../reference/months.csv (Debian: r-cran-survival, r-cran-cmprsk).
#   Rscript robust_models.R > robust_models.json
suppressMessages({library(survival); library(cmprsk)})
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
d <- read.csv(file.path(here, "../reference/months.csv"))
d$event <- as.integer(d$state == 1)
d$centre <- paste0(d$group, (seq_len(nrow(d)) - 1) %% 2)          # eight centres
d$entry <- d$months %/% 3
out <- list()
se <- function(f) sqrt(diag(vcov(f)))
f <- coxph(Surv(months, event) ~ x + z + strata(centre), d); out$stratified <- c(coef(f), se(f))
f <- coxph(Surv(months, event) ~ x + z, d, cluster = centre); out$cluster <- c(coef(f), se(f))
f <- coxph(Surv(months, event) ~ x + z + frailty(centre, distribution = "gaussian", method = "reml", sparse = FALSE,
                                                eps = 1e-9), d)
out$frailty <- c(coef(f)[1:2], sqrt(diag(f$var))[1:2], f$history[[1]]$theta)
f <- coxph(Surv(entry, months, event) ~ x + z, d); out$entry <- c(coef(f), se(f))
s <- survSplit(Surv(months, event) ~ ., d, cut = c(12, 36), episode = "period")
f <- coxph(Surv(tstart, months, event) ~ x:factor(period) + z, s); out$piecewise <- c(coef(f)[-1], se(f)[-1])
weighted <- function(w) {                       # two groups by z, weights w(at risk, S(t-))
  t <- sort(unique(d$months[d$event == 1])); u <- 0; v <- 0; surv <- 1
  for (k in t) {
    n <- sum(d$months >= k); n1 <- sum(d$months >= k & d$z == 1)
    e <- sum(d$months == k & d$event == 1); e1 <- sum(d$months == k & d$event == 1 & d$z == 1)
    g <- w(n, surv); u <- u + g * (e1 - e * n1 / n)
    if (n > 1) v <- v + g^2 * e * (n1 / n) * (1 - n1 / n) * (n - e) / (n - 1)
    surv <- surv * (1 - e / n)
  }
  u^2 / v
}
out$weighted <- c(survdiff(Surv(months, event) ~ z, d, rho = 1)$chisq, weighted(function(n, s) s),
                  weighted(function(n, s) n), weighted(function(n, s) 1 - s))
f <- survfit(Surv(months / 12, event) ~ z, d); m <- summary(f, rmean = 5)$table
gap <- m[2, "rmean"] - m[1, "rmean"]; e <- sqrt(sum(m[, "se(rmean)"]^2))
out$rmst <- c(gap, gap - qnorm(.975) * e, gap + qnorm(.975) * e, 2 * pnorm(-abs(gap / e)))
f <- crr(d$months, d$state, cbind(x = d$x, z = d$z, xz = d$x * d$z)); out$finegray <- c(f$coef[3], sqrt(diag(f$var))[3])
cat("{", paste(sprintf('"%s": [%s]', names(out), sapply(out, function(v) paste(sprintf("%.10f", v), collapse = ", "))),
               collapse = ",\n "), "}\n", sep = "")
