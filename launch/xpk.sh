#!/usr/bin/env bash
# TPU slices on GKE by xpk: launch/xpk.sh create|delete [--config.FIELD=VALUE ...]
set -euo pipefail
: "${NAME:=llama3}" "${CLUSTER:=llama3}" "${PROJECT:=PROJECT}" "${ZONE:=us-east5-a}"
: "${TYPE:=v5p-128}" "${SLICES:=1}" "${STORAGE:=share}" # attached, mounted at /share
: "${IMAGE:=us-docker.pkg.dev/PROJECT/REPOSITORY/llama3_jax:tpu}"
: "${CONFIG:=configs/pretrain.py:8b}" "${DATA:=/share/shards}"
: "${WORKDIR:=/share/runs/$NAME}" "${CHIP:=v5p}" "${GRACE:=300}" "${RESTARTS:=100}"

workload() {
  local verb=$1
  shift
  set -- xpk workload "$verb" --workload="$NAME" --cluster="$CLUSTER" \
    --project="$PROJECT" --zone="$ZONE" "$@"
  if [[ -n ${DRY_RUN:-} ]]; then printf '%s\n' "$(printf '%q ' "$@")"; else "$@"; fi
}

action=${1:-}
(($# == 0)) || shift
case $action in
  create)
    # xpk restarts on 42 and from 127 on; 1 is what the peers of a lost process end with.
    # Without exec its SIGTERM would reach a shell.
    experiment=(python -m experiment --config="$CONFIG" --workdir="$WORKDIR"
      --config.data.root="$DATA" --config.mesh.replica="$SLICES" --coordinator=auto
      --chip="$CHIP" --stopped=143 "$@")
    workload create --tpu-type="$TYPE" --num-slices="$SLICES" --docker-image="$IMAGE" \
      --storage="$STORAGE" --env=LLAMA3_CACHE=/share/cache --max-restarts="$RESTARTS" \
      --restart-on-exit-codes=1 --termination-grace-period-seconds="$GRACE" \
      --command="exec $(printf '%q ' "${experiment[@]}")"
    ;;
  delete) workload delete ;;
  *) echo "$0: create or delete" >&2 && exit 2 ;;
esac
