# Standardised differences in plain R (Yang and Dalton 2012), on the simulated cohort of ../reference/months.csv.
#   Rscript standardised.R > standardised.json
d <- read.csv(file.path(dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))), "../reference/months.csv"))
number <- function(v) { a <- d[d$z == 0, v]; b <- d[d$z == 1, v]; (mean(a) - mean(b)) / sqrt((var(a) + var(b)) / 2) }
levels_of <- function(v) {
  t <- prop.table(table(d$z, d[[v]]), 1); p <- t[1, -1]; q <- t[2, -1]
  s <- ((diag(p) - p %o% p) + (diag(q) - q %o% q)) / 2
  sqrt(drop(t(p - q) %*% solve(s) %*% (p - q)))
}
cat(sprintf('{"x": %.12f, "group": %.12f}\n', number("x"), levels_of("group")))
