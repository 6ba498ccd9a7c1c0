"""One file a kind of chart, each with its entries `CHARTS`; see `benchmark.report.chart`."""
