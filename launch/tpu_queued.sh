#!/usr/bin/env bash
# TPU slices by a queued resource: launch/tpu_queued.sh create|run|stop|delete [FIELDS]
# SLICES=2 or more: multislice; mesh.replica is the number of slices.
set -euo pipefail
: "${NAME:=llama3}" "${ZONE:=us-east5-a}" "${TYPE:=v5p-128}" "${RUNTIME:=v2-alpha-tpuv5}"
: "${SLICES:=1}" "${SPOT:=1}" # SPOT=0: capacity that is not taken away
: "${WORKDIR:=/share/runs/$NAME}" "${WAIT:=60}"
export ZONE WORKDIR

queued() {
  local verb=$1
  shift
  set -- gcloud compute tpus queued-resources "$verb" "$NAME" --zone="$ZONE" "$@"
  if [[ -n ${DRY_RUN:-} ]]; then printf '%s\n' "$(printf '%q ' "$@")"; else "$@"; fi
}

nodes=("$NAME")
request=(--node-id="$NAME")
if ((SLICES > 1)); then
  nodes=()
  for ((i = 0; i < SLICES; i++)); do nodes+=("$NAME-$i"); done
  request=(--node-count="$SLICES" --node-prefix="$NAME")
fi
((SPOT == 0)) || request+=(--spot)
action=${1:-}
(($# == 0)) || shift
case $action in
  create) queued create --accelerator-type="$TYPE" --runtime-version="$RUNTIME" \
    "${request[@]}" ;;
  run | stop)
    until [[ -n ${DRY_RUN:-} ]]; do
      state=$(queued describe --format='value(state.state)')
      [[ $state != ACTIVE ]] || break
      [[ $state != @(FAILED|SUSPENDED) ]] || { echo "$NAME: $state" >&2 && exit 1; }
      sleep "$WAIT"
    done
    pids=()
    for node in "${nodes[@]}"; do
      NAME=$node "${0%/*}/tpu.sh" "$action" --config.mesh.replica="$SLICES" "$@" &
      pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid"; done
    ;;
  delete) queued delete --force --quiet ;;
  *) echo "$0: create, run, stop or delete" >&2 && exit 2 ;;
esac
