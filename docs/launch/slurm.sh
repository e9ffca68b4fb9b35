#!/bin/bash
# sbatch --export=ALL,CORPUS=/shared/corpus,RUN=/shared/runs/mine docs/launch/slurm.sh
# CORPUS and RUN are on a file system that all nodes share. Five minutes before the time is up, torchrun is told to stop
# and passes that on; all processes save after the same step, and the job queues itself again to go on from there.
#SBATCH --job-name=lambert
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=lambert-%j.log
set -u
# module load cuda python                              # where Python and the driver's libraries are modules
# source /shared/venv/bin/activate                     # the environment with lambert, on a file system of all nodes
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0  # where the first network interface does not reach the other nodes
# In a container (Pyxis): srun --container-image=/shared/lambert.sqsh --container-mounts=/shared torchrun …
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
size() { cat "$RUN/journal.jsonl" 2> /dev/null | wc -c; }
before=$(size)
srun torchrun \
  --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "${PROCESSES_PER_NODE:-gpu}" \
  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:${PORT:-29500}" \
  -m lambert pretrain --corpus "$CORPUS" --out "$RUN" ${OPTIONS:---model base --batch-size 4096 --epochs 40}
code=$?
# torchrun's own code is 1 whatever happened; the journal, where this job has added to it, knows whether the run was asked
# to stop.
if [ "$(size)" -gt "$before" ] && tail -n 1 "$RUN/journal.jsonl" | grep -q '"reason": "interrupted"'; then
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit $code
