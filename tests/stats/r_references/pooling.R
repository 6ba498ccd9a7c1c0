# Rubin's rules for a Cox regression by mice, and random effects over centres by metafor.
#   Rscript pooling.R > pooling.json        (Debian: r-cran-mice, r-cran-survival, r-cran-metafor)
suppressMessages({library(mice); library(survival); library(metafor)})
options(digits = 12)
number <- function(x) paste0("[", paste(format(x, digits = 12, trim = TRUE), collapse = ", "), "]")
lung2 <- lung[complete.cases(lung[, c("time", "status", "age", "sex", "ph.karno")]), ]
holes <- seq(3, nrow(lung2), by = 4)
fits <- lapply(1:5, function(k) {            # five fixed completions, the same in the test
  d <- lung2
  d$ph.karno[holes] <- 50 + 10 * ((seq_along(holes) * k) %% 6)
  coxph(Surv(time, status) ~ age + sex + ph.karno, d)
})
p <- summary(pool(as.mira(fits)), conf.int = TRUE)
q <- pool(as.mira(fits))$pooled
cat('{"mice": "', as.character(packageVersion("mice")), '", "events": ', fits[[1]]$nevent, ',\n', sep = "")
cat('"estimate": ', number(p$estimate), ', "std_error": ', number(p$std.error), ', "df": ', number(p$df), ',\n', sep = "")
cat('"p": ', number(p$p.value), ', "low": ', number(p[["2.5 %"]]), ', "high": ', number(p[["97.5 %"]]), ',\n', sep = "")
cat('"dfcom": ', number(q$dfcom), ', "fmi": ', number(q$fmi), ',\n', sep = "")
y <- c(0.12, 0.35, 0.55, -0.08, 0.31); se <- c(0.10, 0.15, 0.22, 0.18, 0.09)
r <- rma(y, sei = se, method = "REML", test = "knha", control = list(threshold = 1e-12, maxiter = 1000))
z <- predict(r)
cat('"metafor": "', as.character(packageVersion("metafor")), '",\n', sep = "")
cat('"random": ', number(c(r$b, r$ci.lb, r$ci.ub, r$tau2, r$I2 / 100, r$QE, r$QEp)), '}\n', sep = "")
