"""The provider of inspect-ai: what it is asked, and what it gives back."""

import asyncio

import post_examples as toy
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.generate import engine
from llama3_jax.generate.settings import Settings
from llama3_jax.text import chat
from llama3_jax.train import belongs
from llama3_jax.train import models

pytest.importorskip('inspect_ai', reason='the extra inspect is not installed')

from inspect_ai.model import ChatMessageAssistant  # noqa: E402
from inspect_ai.model import ChatMessageSystem  # noqa: E402
from inspect_ai.model import ChatMessageUser  # noqa: E402
from inspect_ai.model import GenerateConfig  # noqa: E402
from inspect_ai.model import get_model  # noqa: E402

from llama3_jax.eval import inspect_provider  # noqa: E402, F401


@pytest.fixture
def tokenizer(tmp_path):
  return toy.tokenizer(tmp_path)


@pytest.fixture
def provider(monkeypatch, tokenizer):
  """Of a toy model, found by its name as inspect finds it."""
  monkeypatch.setattr(belongs, 'tokenizer', lambda *names: tokenizer)
  monkeypatch.setattr(models, 'load', lambda name, field: (toy.model(), toy.CONFIG))
  found = get_model('llama3_jax/runs/toy', memoize=False, window=96, rows=2)
  assert found.name == 'runs/toy'
  yield found.api
  if found.api.worker:
    found.api.worker.close()


DIALOGS = [
  [ChatMessageUser(content=f'{text}?')] for text in ('one', 'two and three', 'four')
]
DIALOGS += [[
  ChatMessageSystem(content='be'),
  ChatMessageUser(content='a'),
  ChatMessageAssistant(content='b'),
  ChatMessageUser(content='c'),
]]  # fmt: skip


def asked(provider, dialogs, *configs):
  """Outputs of dialogs that are asked at a time, each with a config."""

  async def every():
    pairs = zip(dialogs, configs * len(dialogs) if len(configs) == 1 else configs)
    tasks = [provider.generate(d, [], 'auto', config) for d, config in pairs]
    return await asyncio.gather(*tasks)

  return asyncio.run(every())


def test_answers_are_those_of_the_engine_whatever_is_asked_at_a_time(
  provider, tokenizer
):
  config = GenerateConfig(max_tokens=12)
  found = asked(provider, DIALOGS, config)
  prompts = [
    chat.encode(tokenizer, [chat.Message(m.role, m.text) for m in d], prompt=True)
    for d in DIALOGS
  ]
  how = Settings(0, 1.0, 0, 12, tokenizer.vocab_size)
  own = engine.generate(
    toy.model(), [p.ids.tolist() for p in prompts], toy.CONFIG, tokenizer.stop_ids, how
  )
  wanted = [chat.sampled(tokenizer, one.sampled).content for (one,) in own]
  assert [one.completion for one in found] == wanted and len(set(wanted)) > 1
  ends = {True: 'stop', False: 'max_tokens'}
  assert [one.stop_reason for one in found] == [ends[one.stopped] for (one,) in own]
  # Another evaluation of the process has an event loop of its own.
  assert [one.completion for one in asked(provider, DIALOGS[:1], config)] == wanted[:1]


def test_sampling_has_a_seed_and_without_one_answers_differ(provider):
  warm = {'temperature': 3.0, 'max_tokens': 16}
  dialogs = DIALOGS[:1] * 2
  one, other = asked(provider, dialogs, GenerateConfig(**warm, seed=7))
  assert one.completion == other.completion
  one, other = asked(provider, dialogs, GenerateConfig(**warm))
  assert one.completion != other.completion


def test_stop_texts_windows_and_tools(provider):
  whole, full = asked(
    provider,
    [DIALOGS[0], [ChatMessageUser(content='long ' * 90)]],
    GenerateConfig(max_tokens=12, stop_seqs=['']),
    GenerateConfig(),
  )
  stop = whole.completion[3:5]
  [cut] = asked(provider, DIALOGS[:1], GenerateConfig(max_tokens=12, stop_seqs=[stop]))
  assert cut.completion == whole.completion.partition(stop)[0]
  assert full.stop_reason == 'model_length' and full.completion == ''
  with pytest.raises(UserError, match='openai-api'):
    asyncio.run(provider.generate(DIALOGS[0], ['search'], 'auto', GenerateConfig()))
