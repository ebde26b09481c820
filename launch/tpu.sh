#!/usr/bin/env bash
# One TPU slice by gcloud: launch/tpu.sh create|run|stop|delete [--config.FIELD=VALUE ...]
set -euo pipefail
: "${NAME:=llama3}" "${ZONE:=us-east5-a}" "${TYPE:=v5p-128}" "${RUNTIME:=v2-alpha-tpuv5}"
: "${IMAGE:=us-docker.pkg.dev/PROJECT/REPOSITORY/llama3_jax:tpu}"
: "${SHARE:=10.0.0.2:/share}" # NFS, seen by all hosts as /share
: "${CONFIG:=configs/pretrain.py:8b}" "${DATA:=/share/shards}"
: "${WORKDIR:=/share/runs/$NAME}" "${CHIP:=v5p}"

tpu() {
  local verb=$1
  shift
  set -- gcloud compute tpus tpu-vm "$verb" "$NAME" --zone="$ZONE" "$@"
  if [[ -n ${DRY_RUN:-} ]]; then printf '%s\n' "$(printf '%q ' "$@")"; else "$@"; fi
}

action=${1:-}
(($# == 0)) || shift
case $action in
  create) tpu create --accelerator-type="$TYPE" --version="$RUNTIME" ;;
  run)
    experiment=(python -m experiment --config="$CONFIG" --workdir="$WORKDIR"
      --config.data.root="$DATA" --coordinator=auto --chip="$CHIP"
      --stopped=143 "$@")
    # The container outlives the connection; the same command stops and resumes it.
    tpu ssh --worker=all --command="sudo mkdir -p /share && \
{ mountpoint -q /share || sudo mount -t nfs $SHARE /share; } && \
sudo gcloud auth configure-docker ${IMAGE%%/*} --quiet && \
{ sudo docker stop llama3; sudo docker rm llama3; true; } && \
sudo docker run --detach --name=llama3 --privileged --net=host --stop-timeout=300 \
--volume=/share:/share --env=LLAMA3_CACHE=/share/cache $IMAGE $(printf '%q ' "${experiment[@]}") && \
sudo docker logs --follow llama3 && exit \$(sudo docker wait llama3)"
    ;;
  stop) tpu ssh --worker=all --command='sudo docker stop llama3' ;; # saves first
  delete) tpu delete --quiet ;;
  *) echo "$0: create, run, stop or delete" >&2 && exit 2 ;;
esac
