"""The format of tool calls goes from a config to the ids, and on with the model."""

import numpy as np
import post_examples as toy
import pytest
import toy_post as post

from configs import sft as sft_config
from experiments import sft
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.post import sft as sft_lib
from llama3_jax.text import chat
from llama3_jax.text import tool_calls
from llama3_jax.train import belongs

root = post.root  # fixture
CALL = {'name': 'weather', 'arguments': {'city': 'Oslo'}}
ROW = {
  'messages': [
    {'role': 'user', 'content': 'How is it in Oslo?'},
    {'role': 'assistant', 'content': '', 'calls': [CALL], 'end': 'eom'},
  ]
}


def supervised(tokenizer):
  """The text of the targets of ROW that are trained on."""
  rows, dropped = sft_lib.rows([sft_lib.parse(ROW, 'row 1')], tokenizer, 256)
  assert not dropped
  return tokenizer.decode(rows.targets[0][rows.weight[0] > 0].tolist())


@pytest.mark.parametrize('form', tool_calls.FORMATS)
def test_rows_are_written_in_the_tokenizers_format(root, form):
  path = root / 'bytes.model'
  tokenizer = belongs.tokenizer(str(path), str(root / 'base'), call_format=form)
  said = supervised(tokenizer)
  assert tool_calls.write(tool_calls.Call(**CALL), form) in said
  [message] = [chat.message(m, '') for m in ROW['messages'][1:]]
  ids = chat.encode(tokenizer, [message], call_format='json').ids
  same = np.array_equal(ids, chat.encode(tokenizer, [message]).ids)
  assert same == (form == 'json')


def test_a_model_is_asked_in_the_format_it_was_trained_with(root, tmp_path):
  jsonl.write(tmp_path / 'calls.jsonl', [ROW] * 4)
  c = post.training(sft_config.get_config('tiny'), root, 'base')
  c.data.files = (str(tmp_path / 'calls.jsonl'),)
  c.data.call_format = 'function_tag'
  sft.main(c, str(root / 'calls'))
  carried = belongs.tokenizer('', str(root / 'calls'))
  assert carried.call_format == 'function_tag'
  assert '<function=weather>' in supervised(carried)
  again = belongs.tokenizer('', str(root / 'calls'), call_format='python_list')
  assert again.call_format == 'python_list'
  before = belongs.tokenizer(str(root / 'bytes.model'), str(root / 'base'))
  assert before.call_format == 'json' == toy.tokenizer(tmp_path).call_format


def test_an_unknown_format_is_one_line(root):
  c = post.training(sft_config.get_config('tiny'), root, 'base')
  c.data.call_format = 'yaml'
  with pytest.raises(UserError, match="data.call_format='yaml': one of json") as error:
    sft.main(c, str(root / 'yaml'))
  assert '\n' not in str(error.value)
