"""The mix of finetuning: what an epoch has of each source."""

import collections

import pytest
from post_examples import answer

from llama3_jax.base.errors import UserError
from llama3_jax.post import mixture
from llama3_jax.post import sft
from llama3_jax.text.chat import Message


def dialogs(**sizes):
  made = []
  for name, n in sizes.items():
    for i in range(n):
      said = (Message('user', f'{name} {i}'), answer('yes'))
      made.append(
        sft.Dialog(
          said, name if name != 'file' else '', '', f'a/{name}.jsonl, line {i}'
        )
      )
  return made


def used(found):
  return collections.Counter(map(mixture.source, found))


def test_without_fields_every_dialog_is_used_once_in_order():
  given = dialogs(math=3, code=5)
  found, counts = mixture.mixed(given, (), (), 0)
  assert found == given
  assert counts == {'math': dict(rows=3, used=3), 'code': dict(rows=5, used=5)}


def test_passes_repeat_whole_sources_and_draw_parts_without_replacement():
  given = dialogs(math=10, code=40)
  found, counts = mixture.mixed(given, (), (('math', 2.5), ('code', 0.25)), 0)
  assert used(found) == {'math': 25, 'code': 10}
  assert counts['math'] == dict(rows=10, used=25)
  times = collections.Counter(d.messages[0].content for d in found)
  assert {times[f'math {i}'] for i in range(10)} == {2, 3}
  assert max(times[f'code {i}'] for i in range(40)) == 1
  assert (
    mixture.mixed(given, (), (('code', 0.25),), 0)[0]
    != (mixture.mixed(given, (), (('code', 0.25),), 1)[0])
  )
  again = mixture.mixed(given, (), (('math', 2.5), ('code', 0.25)), 0)[0]
  assert again == found


def test_shares_are_of_all_examples_and_others_keep_their_proportion():
  given = dialogs(math=10, code=60, talk=30)
  found, _ = mixture.mixed(given, (('math', 0.46),), (), 0)
  assert used(found) == {'math': 46, 'code': 36, 'talk': 18}
  every = (('math', 0.5), ('code', 0.3), ('talk', 0.2))
  assert used(mixture.mixed(given, every, (), 0)[0]) == dict(math=50, code=30, talk=20)
  both, _ = mixture.mixed(given, (('math', 0.25),), (('talk', 0.0),), 0)
  assert used(both) == {'math': 18, 'code': 52}


def test_rows_without_a_source_are_of_their_file():
  found, counts = mixture.mixed(dialogs(file=4, math=4), (('file', 0.25),), (), 0)
  assert counts['file'] == dict(rows=4, used=2) and len(found) == 8


@pytest.mark.parametrize(
  'shares, passes, words',
  [
    (
      (('maths', 0.5),),
      (),
      "data.shares: no row is of source 'maths'; there are code, m",
    ),
    ((), (('maths', 0.5),), "data.passes: no row is of source 'maths'"),
    ((('math', 0.5),), (('math', 2.0),), 'both name .math.'),
    ((('math', 0.7), ('code', 0.7)), (), 'add up to 1.4: make that 1, since'),
    ((('math', 0.5), ('code', 0.2)), (), 'add up to 0.7: make that 1'),
  ],
)
def test_mixes_that_cannot_be_are_named(shares, passes, words):
  with pytest.raises(UserError, match=words):
    mixture.mixed(dialogs(math=3, code=3), shares, passes, 0)
