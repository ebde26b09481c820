"""zstd in JSONL: all frames, and never fewer bytes than there are without a word."""

import io
import random

import pytest
import zstandard

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError

RNG = random.Random(0)
TEXT = b''.join(b'%d %x\n' % (i, RNG.getrandbits(64)) for i in range(40_000))
SKIPPABLE = (0x184D2A53).to_bytes(4, 'little') + (5).to_bytes(4, 'little') + b'abcde'


def frame(data, **options):
  return zstandard.ZstdCompressor(**options).compress(data)


def test_all_frames_come_whatever_their_headers():
  parts = [TEXT[:100], b'', TEXT[:500_000], b'\0' * 900_000, TEXT]
  streamed = zstandard.ZstdCompressor(write_checksum=True).compressobj()
  unsized = streamed.compress(TEXT[:90_000]) + streamed.flush()
  packed = [frame(parts[0], write_checksum=True), frame(parts[1]), SKIPPABLE]
  packed += [frame(p, level=19, write_content_size=False) for p in parts[2:4]]
  data = b''.join([*packed, frame(parts[4], write_checksum=True), unsized])
  whole = b''.join(parts) + TEXT[:90_000]
  for size in (7, 1013, 1 << 17):

    class Slow(io.BytesIO):
      def read(self, n=-1, size=size):
        return super().read(min(n, size))

    assert io.BufferedReader(jsonl.Frames(Slow(data))).read() == whole


def test_every_cut_is_said():
  data = frame(TEXT[:300_000]) + frame(TEXT[:200])
  first = len(frame(TEXT[:300_000]))
  for end in [*range(1, 40), first - 1, first + 1, first + 3, first + 9, len(data) - 1]:
    with pytest.raises((EOFError, zstandard.ZstdError)):
      io.BufferedReader(jsonl.Frames(io.BytesIO(data[:end]))).read()
  assert jsonl.Frames(io.BytesIO(data[:first])).read() == TEXT[:300_000]


def test_what_comes_before_garbage_is_whole():
  for garbage in (b'x', b'garbage', b'\x28\xb5\x2fxyz', b'\0' * 50):
    file = jsonl.Frames(io.BytesIO(frame(TEXT) + garbage + frame(TEXT)))
    found = b''
    with pytest.raises((EOFError, zstandard.ZstdError)):
      while part := file.read(1 << 16):
        found += part
    assert found == TEXT


def test_a_bomb_is_never_held():
  bomb = frame(b'\0' * 400_000_000)
  file = jsonl.Frames(io.BytesIO(bomb))
  assert len(bomb) < 50_000 and len(file.read(1000)) == 1000


def test_lines_are_counted_from_1_and_a_mark_at_the_start_is_skipped(tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes(jsonl.BOM + b'{"a": 1}\n\n{"a": 2}\n')
  found = list(jsonl.read(path, 'data.files'))
  assert found == [(f'{path}, line 1', {'a': 1}), (f'{path}, line 3', {'a': 2})]


@pytest.mark.parametrize('word', ['NaN', 'Infinity', '-Infinity'])
def test_number_that_is_not_finite_is_refused_by_its_line(word):
  with pytest.raises(UserError, match=f'here: not JSON .{word}'):
    jsonl.parse(f'{{"a": {word}}}', 'here')
  assert list(jsonl.parse(f'{{"a": {word}}}', 'here', finite=False)) == ['a']
