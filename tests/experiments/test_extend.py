"""The examples of docs/extend.md run as they are printed."""

import importlib.util
import re

from llama3_jax.train import metrics


def blocks(root, language):
  """The texts of the page's blocks in a language."""
  text = (root / 'docs/extend.md').read_text(encoding='utf-8')
  return re.findall(rf'```{language}\n(.*?)```', text, re.S)


def test_a_loss_of_your_own_is_trained_by_the_same_loop(root, toy, tmp_path):
  code, _ = blocks(root, 'python')
  example = {}
  exec(code, example)
  spec = importlib.util.spec_from_file_location('toy_config', toy / 'toy.py')
  config = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(config)
  results = example['main'](config.get_config('20'), str(tmp_path / 'run'))
  rows = [row for row in metrics.read(tmp_path / 'run') if 'loss' in row]
  assert rows[-1]['loss'] < rows[0]['loss']
  assert results['eval_loss']['eval_loss'] > 0
  assert (tmp_path / 'run' / 'final' / 'model.json').exists()


def test_a_chat_template_of_your_own_says_what_is_trained_on(root):
  [source], (_, code) = blocks(root, 'jinja'), blocks(root, 'python')
  example = {'source': source}
  exec(code, example)
  assert example['trained'] == ['Hello.<|im_end|>']
  opened = '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n'
  assert example['prompt'] == opened
  assert example['made'].text == opened + 'Hello.<|im_end|>\n'
