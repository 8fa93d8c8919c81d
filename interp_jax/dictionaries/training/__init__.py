"""Training dictionaries: the step and its state, sweeps, resampling, scaling, and what is looked at meanwhile."""
