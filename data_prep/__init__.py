"""Everything that comes before the method: the face world and the priors trained on it."""
