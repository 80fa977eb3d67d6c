"""Job arrays of Slurm and Grid Engine, torchrun, and the collectives of distributed training."""
