"""One training script per shipped prior: `python -m data_prep.priors.train_<name> --help`."""
