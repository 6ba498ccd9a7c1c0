# Weighted log-rank tests with events at time 0 and tied times; R's survival (survdiff).
# Rscript weighted_log_rank.R > weighted_log_rank.json
library(survival)
time <- c(0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 0, 1, 3, 7)
event <- c(1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1)
group <- c(0, 0, 0, 1, 1, 0, 1, 0, 1, 1, 2, 2, 2, 2)
early <- survdiff(Surv(time, event) ~ group, rho = 1)$chisq
plain <- survdiff(Surv(time, event) ~ group)$chisq
# Gehan and the late weights by hand: U = sum w (d - e), V = sum w^2 v over the times with an event.
weighted <- function(weigh) {
  at <- sort(unique(time[event == 1])); k <- sort(unique(group))
  u <- numeric(length(k)); v <- matrix(0, length(k), length(k)); s <- 1
  for (t in at) {
    n <- sapply(k, function(g) sum(time >= t & group == g)); d <- sapply(k, function(g) sum(time == t & event == 1 & group == g))
    N <- sum(n); D <- sum(d); w <- weigh(N, s)
    u <- u + w * (d - D * n / N)
    if (N > 1) v <- v + w^2 * D * (N - D) / (N - 1) * (diag(n / N) - outer(n / N, n / N))
    s <- s * (1 - D / N)
  }
  drop(u[-1] %*% solve(v[-1, -1]) %*% u[-1])
}
stopifnot(abs(weighted(function(N, s) 1) - plain) < 1e-10)
cat(sprintf('{"early": %.12f, "at risk": %.12f, "late": %.12f}\n', early, weighted(function(N, s) N), weighted(function(N, s) 1 - s)))
