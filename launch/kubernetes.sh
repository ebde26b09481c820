#!/usr/bin/env bash
# A manifest with its values: launch/kubernetes.sh FILE.yaml [--config.FIELD=VALUE ...]
# FILE: gpu_job, sweep_job or tpu_jobset. The same command runs it again when it is over.
set -euo pipefail
: "${NAME:=llama3}" "${IMAGE:=us-docker.pkg.dev/PROJECT/REPOSITORY/llama3_jax:cuda}"
: "${CLAIM:=share}" # a PersistentVolumeClaim, ReadWriteMany, mounted at /share
: "${CONFIG:=configs/pretrain.py:8b}" "${DATA:=/share/shards}"
: "${WORKDIR:=/share/runs/$NAME}" "${GRACE:=300}" "${RESTARTS:=100}"
: "${NODES:=4}" "${GPUS:=8}" # gpu_job
: "${MEMBERS:=3}" "${AT_ONCE:=3}" # sweep_job
: "${SLICES:=1}" "${HOSTS:=16}" "${CHIPS:=4}" # tpu_jobset; chips of a host
: "${ACCELERATOR:=tpu-v5p-slice}" "${TOPOLOGY:=4x4x4}"
file=${1:?gpu_job.yaml, sweep_job.yaml or tpu_jobset.yaml}
shift
case $file in *tpu*) : "${CHIP:=v5p}" ;; *) : "${CHIP:=h100}" ;; esac
FIELDS=$( (($# == 0)) || printf '%q ' "$@")
export NAME IMAGE CLAIM CONFIG DATA WORKDIR GRACE RESTARTS NODES GPUS MEMBERS AT_ONCE \
  SLICES HOSTS CHIPS ACCELERATOR TOPOLOGY CHIP FIELDS

manifest=$(python3 -c 'import os, string, sys
text = open(sys.argv[1]).read()
print(string.Template(text).substitute(os.environ), end="")' "$file")
if [[ -n ${DRY_RUN:-} ]]; then
  printf '%s\n' "$manifest"
else
  kubectl delete --ignore-not-found --wait -f - <<<"$manifest"
  kubectl apply -f - <<<"$manifest"
fi
