"""Algorithm 1: schedule (section 3.2), optimiser, precision, resuming."""
