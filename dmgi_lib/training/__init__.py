"""Training: the one resumable loop, the losses and the stages of the method."""
