"""Evaluation protocol of the paper's Table 1: judges that read images, and metrics on readings."""
