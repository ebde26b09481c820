#!/usr/bin/env bash
# MaxText's own trainer on its synthetic data: maxtext.sh SHAPE DTYPE REMAT STEPS
# PYTHON: an interpreter with MaxText installed (see README.md).
set -euo pipefail
case $1 in
  d256) size="base_emb_dim=256 head_dim=32 base_mlp_dim=896 base_num_decoder_layers=4 vocab_size=4096" ;;
  d512) size="base_emb_dim=512 head_dim=64 base_mlp_dim=1792 base_num_decoder_layers=8 vocab_size=32000" ;;
esac
remat=$3
[ "$remat" = none ] && remat=minimal_with_context
base=$("$PYTHON" -c 'import importlib.util as u; print(u.find_spec("maxtext").submodule_search_locations[0])')
export DECOUPLE_GCLOUD=TRUE JAX_PLATFORMS=cpu
cd "$(mktemp -d)"
exec "$PYTHON" -m maxtext.trainers.pre_train.train "$base/configs/base.yml" \
  run_name=bench base_output_directory=out hardware=cpu \
  skip_jax_distributed_system=true dataset_type=synthetic enable_dropout=false \
  attention=dot_product enable_checkpointing=false steps="$4" dtype="$2" \
  remat_policy="$remat" base_num_query_heads=8 base_num_kv_heads=2 \
  decoder_block=llama2 logits_via_embedding=false max_target_length=256 \
  per_device_batch_size=8 enable_goodput_recording=false \
  monitor_goodput=false enable_tensorboard=false log_config=false $size
