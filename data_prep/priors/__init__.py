"""One recipe per frozen network, and the trainer: `python -m data_prep.priors.trainer --help`."""
