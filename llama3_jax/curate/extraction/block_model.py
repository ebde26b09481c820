"""Model of the blocks that are text: a weight for each step of a measure (blocks.py).

Boosted steps, trained by `python bench/extraction.py FOLDER --train` on pages with
hand-made article bodies. (measure, threshold, value): where the measure is above the
threshold, the value counts.
"""

BIAS = 0.662
STEPS = (
  ('chars', 2.9957, 0.141),
  ('chars', 3.4012, 0.15),
  ('chars', 4.62, 0.353),
  ('chars', 4.8363, 0.192),
  ('chars', 5.0304, 0.599),
  ('link', 0.0833, -0.197),
  ('link', 0.2815, -1.223),
  ('end', 0.0, 0.845),
  ('bare', 0.0, -1.33),
  ('notice', 0.0, -1.075),
  ('before', 0.0, 0.267),
  ('before', 0.6973, -0.13),
  ('before', 0.857, -0.18),
  ('before', 0.9273, -0.505),
  ('last', 2.0, 0.102),
  ('finish', 6.0, 0.118),
  ('finish', 10.0, 0.089),
  ('finish', 15.0, 0.114),
  ('total', 6.4069, -1.01),
  ('total', 7.0942, -0.116),
  ('chars-1', 2.7726, 0.322),
  ('chars-1', 3.5553, 0.282),
  ('link-1', 0.0648, -0.124),
  ('link-1', 0.2494, -0.194),
  ('end-1', 0.0, 0.1),
  ('p-1', 0.0, 0.315),
  ('notice-1', 0.0, -0.564),
  ('chars+1', 2.7726, 0.231),
  ('chars+1', 3.2189, 0.307),
  ('chars+1', 3.5553, 0.126),
  ('chars+1', 4.7875, 0.097),
  ('notice+1', 0.0, -0.158),
  ('chars-2', 2.9957, 0.425),
  ('chars+2', 2.9444, 0.158),
)
MODEL = (BIAS, STEPS)
