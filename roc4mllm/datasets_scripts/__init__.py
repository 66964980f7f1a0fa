"""From raw downloads to Parquet that `datasets.load_dataset` reads: one file per data set."""
