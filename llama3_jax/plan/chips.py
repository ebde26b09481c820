"""Memory, speed and network of accelerators, as data (section 3.3.1).

Speeds are the makers' data sheets (Google Cloud's TPU system pages, NVIDIA's H100 SXM
sheet). `limit` and `reserved` are those the compiler reports when it loads a program or
refuses one. Host memory is behind PCIe, of the fifth generation on v6e and H100; the
share of a TPU is a published rule of thumb, 16e9 or 32e9 bytes/s.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One kind of accelerator; speeds are those of one device (tpu7x has two a chip)."""

  name: str
  platform: str  # 'tpu' or 'cuda'
  prefix: str  # of the compiler's topology name
  layout: str  # the compiler's chip configuration
  devices: int  # a chip
  dims: int  # of the torus; GPUs: 1
  peak: float  # dense bf16 FLOP/s
  bandwidth: float  # of device memory, bytes/s
  limit: int  # device memory a program may use, bytes
  reserved: int  # part of it that the runtime takes, bytes
  clock: float  # cycles/s, of the compiler's cycle estimates
  link: float  # one way, bytes/s: of a torus link, or a GPU's NVLink ports together
  network: float  # between slices or hosts, bytes/s a device
  host: float  # one way between device and host memory, bytes/s
  ring: int  # a dim with a multiple of so many chips is closed to a ring
  largest: tuple[int, ...] = ()
  eight: float = 1.0  # times the peak, of products of float8
  whole: float = 1.0  # times the peak, of products of int8


V5E = Chip(
  name='v5e',
  platform='tpu',
  prefix='v5e',
  layout='default',
  devices=1,
  dims=2,
  peak=197e12,
  bandwidth=819e9,
  limit=int(15.75 * GIB),
  reserved=int(0.257 * GIB),
  clock=1.5e9,
  link=45e9,
  network=3.1e9,  # 100 Gbit/s for four chips
  host=16e9,
  ring=16,
  largest=(16, 16),
  whole=2.0,
)
V5P = Chip(
  name='v5p',
  platform='tpu',
  prefix='v5',
  layout='megacore',
  devices=1,
  dims=3,
  peak=459e12,
  bandwidth=2765e9,
  limit=int(95.74 * GIB),
  reserved=int(0.257 * GIB),
  clock=1.75e9,
  link=90e9,
  network=6.25e9,  # 200 Gbit/s for four chips
  host=16e9,
  ring=4,
  largest=(16, 16, 24),
  whole=2.0,
)
V6E = dataclasses.replace(
  V5E,
  name='v6e',
  prefix='v6e',
  peak=918e12,
  bandwidth=1640e9,
  limit=int(31.25 * GIB),
  clock=1.75e9,
  link=90e9,
  network=6.25e9,
  host=32e9,
)
TPU7X = dataclasses.replace(
  V5P,
  name='tpu7x',
  prefix='tpu7x',
  layout='default',
  devices=2,
  peak=1153e12,
  bandwidth=3690e9,
  limit=int(94.75 * GIB),
  clock=2.2e9,
  link=100e9,
  eight=2.0,
  whole=1.0,
)
H100 = Chip(
  name='h100',
  platform='cuda',
  prefix='',
  layout='',
  devices=1,
  dims=1,
  peak=989e12,
  bandwidth=3350e9,
  limit=int(0.92 * 79.1 * GIB),  # the fraction that flags.environment asks for
  reserved=0,
  clock=1.98e9,
  link=450e9,
  network=50e9,  # 400 Gbit/s a GPU (section 3.3.1)
  host=64e9,
  ring=0,
  eight=2.0,
  whole=2.0,
)
CHIPS = {c.name: c for c in (V5E, V5P, V6E, TPU7X, H100)}

# Device properties that the GPU compiler needs; from the data sheet and CUDA's tables
# of compute capability 9.0.
H100_TARGET = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  l2_cache_size: 52428800
  memory_bandwidth: 3350000000000
  device_memory_size: 84942979072
}
"""
