# shellcheck shell=bash
# Sourced by a recipe's run.sh, before its options (--cmd NAME and so on), which come first: where stages 1 to 5 run.
# Stage 0 always runs here: it downloads, for which the nodes of many clusters have no network.
#
# One variable sends them off; the environment's SPEECHEQ_CMD takes precedence over this file.
#   local   here
#   slurm   as jobs of Slurm (sbatch)
#   sge     as jobs of Sun Grid Engine or one of its heirs (qsub)
# shellcheck disable=SC2034  # read by utils/recipe.sh
cmd=${SPEECHEQ_CMD:-local}

# What a job asks for; empty: what the cluster gives by itself.
# shellcheck disable=SC2034
{
  partition=     # of Slurm; the queue of Grid Engine
  account=       # or project
  time=          # limit, such as 10:00:00
  memory=        # such as 8G; of Grid Engine, for each of the --cpus
  cpus=          # of Grid Engine, in the parallel environment smp
  gpu=any        # what a GPU is called: any, a kind (a100; of Grid Engine its resource), none: ask for none
  jobs_at_once=  # jobs of a stage at once, at most
  requeue=false  # whether jobs that had to make room, or whose time is up, save and start again by themselves
}
