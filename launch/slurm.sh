#!/usr/bin/env bash
# GPUs under Slurm, one process a node: launch/slurm.sh [--config.FIELD=VALUE ...]
# ARRAY=0-2 NODES=1 launch/slurm.sh runs the members of the config's sweep().
set -euo pipefail
: "${NAME:=llama3}" "${NODES:=4}" "${GPUS:=8}" "${TIME:=24:00:00}" "${ARRAY:=}"
: "${CONFIG:=configs/pretrain.py:8b}" "${DATA:=/share/shards}"
: "${WORKDIR:=/share/runs/$NAME}" "${CHIP:=h100}" "${GRACE:=300}" "${RESTARTS:=100}"
: "${LLAMA3_CACHE:=/share/cache}"
export LLAMA3_CACHE PATH="$PWD/.venv/bin:$PATH"

run() { if [[ -n ${DRY_RUN:-} ]]; then printf '%s\n' "$(printf '%q ' "$@")"; else "$@"; fi; }

if [[ -z ${SLURM_JOB_ID:-} ]]; then # here: hand this file to Slurm, with all variables
  run sbatch --job-name="$NAME" --nodes="$NODES" --ntasks-per-node=1 --exclusive \
    --gpus-per-node="$GPUS" --time="$TIME" --signal="TERM@$GRACE" --requeue \
    --open-mode=append ${ARRAY:+--array="$ARRAY"} "$0" "$@"
  [[ -n ${DRY_RUN:-} ]] || exit 0
fi
# Else jax gives a process under Slurm one GPU only, that of its number on the node.
JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((GPUS - 1)))
export JAX_LOCAL_DEVICE_IDS
index=${SLURM_ARRAY_TASK_ID:+--sweep_index=$SLURM_ARRAY_TASK_ID}
status=0
run srun --cpu-bind=none python -m experiment --config="$CONFIG" --workdir="$WORKDIR" \
  --config.data.root="$DATA" --chip="$CHIP" --stopped=143 ${index:+"$index"} "$@" \
  || status=$?
# 0: done. 2: a mistake in the command. Else stopped, or a process was lost: again.
if ((status != 0 && status != 2 && ${SLURM_RESTART_COUNT:-0} < RESTARTS)); then
  run scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
