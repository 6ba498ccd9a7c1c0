# Gray's test of each two of the four groups of ../reference/months.csv by cmprsk (Debian: r-cran-cmprsk).
#   Rscript gray_pairs.R > gray_pairs.json
suppressMessages(library(cmprsk))
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
d <- read.csv(file.path(here, "../reference/months.csv"))
pairs <- combn(sort(unique(d$group)), 2)
stat <- apply(pairs, 2, function(p) { e <- d[d$group %in% p, ]; cuminc(e$months, e$state, e$group)$Tests[1, 1] })
cat(sprintf('[%s]\n', paste(sprintf('[%d, %d, %.10f]', pairs[1, ], pairs[2, ], stat), collapse = ", ")))
