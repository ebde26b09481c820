"""A model answers the questions of tasks: in a chat, as a base model (5.1)."""

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.eval import kept as keeping
from llama3_jax.generate import engine
from llama3_jax.generate import likelihood
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.tasks import suite
from llama3_jax.tasks.task import Example
from llama3_jax.tasks.task import Task
from llama3_jax.text import chat
from llama3_jax.text.tokenizer import Tokenizer

GREEDY = Settings(temperature=0.0, max_new=32)
CHAT, PAPER = -1, -2  # in place of a number of solved examples
ROOM = 2048  # tokens of a row, from which on fewer are answered at a time
TOKEN = 4  # tokens that are read in the time in which one is written
# What the log-probability of a choice is divided by, of Task.normalise.
SIZES = {
  '': lambda text: 1,
  'characters': len,
  'bytes': lambda text: len(text.encode()),
}


def base_prompt(
  tokenizer: Tokenizer, task: Task, example: Example, shots: Sequence[Example]
) -> list[int]:
  """Ids of a question after solved ones, in the form of the task or of exercises."""
  if task.context:
    return tokenizer.encode(task.context(example, shots), bos=True)
  solved = suite.document(shots) + '\n' if shots else ''
  return tokenizer.encode(solved + task.page(example), bos=True)


def chat_prompt(
  tokenizer: Tokenizer, task: Task, example: Example, turns: Sequence[Example] = ()
) -> list[int]:
  """Ids of a question as the user's message, with the assistant's header open; turns:
  solved examples, which are the messages before it."""
  messages = []
  for e in turns:
    messages.append(chat.Message('user', task.prompt(e)))
    messages.append(chat.Message('assistant', e.worked or e.answer))
  messages.append(chat.Message('user', task.prompt(example)))
  return chat.encode(tokenizer, messages, prompt=True).ids.tolist()


@dataclasses.dataclass(frozen=True)
class Asked:
  """The questions of a task as a model is asked them: in a chat, or as a base model."""

  task: Task
  examples: Sequence[Example]
  prompts: Sequence[list[int]]
  settings: Settings
  chat: bool
  samples: int = 1

  @classmethod
  def of(
    cls,
    tokenizer: Tokenizer,
    task: Task,
    examples: Sequence[Example],
    shots: Sequence[Example] | Callable[[Example], Sequence[Example]] | None = None,
    settings: Settings = GREEDY,
    longest: int = 0,
    samples: int = 1,
    turns: Sequence[Example] | Callable[[Example], Sequence[Example]] = (),
  ) -> 'Asked':
    """shots, settings, longest: as of `answers`; samples: answers to a question; turns:
    of a chat, solved examples that are its earlier messages."""
    if any(e.media for e in examples):
      raise UserError('this model reads text: the task has images or sound')
    before, make = (turns, chat_prompt) if shots is None else (shots, base_prompt)
    shown = before if callable(before) else lambda e: before
    prompts = [make(tokenizer, task, e, shown(e)) for e in examples]
    _opened_once(tokenizer, prompts)
    most = max(settings.max_new, task.max_new)
    most = min(most, longest) if longest else most
    own = dict(max_new=most, vocab_size=tokenizer.vocab_size)
    how = dataclasses.replace(settings, **own)
    return cls(task, examples, prompts, how, shots is None, samples)

  @property
  def room(self) -> int:
    """Tokens of a row that holds any prompt with its answer."""
    return engine.room(max(map(len, self.prompts)) + self.settings.max_new)

  @property
  def chooses(self) -> bool:
    """Whether every question has choices, of which the likeliest is the answer."""
    return all(e.choices for e in self.examples)

  @property
  def forced(self) -> bool:
    """Whether every question has one choice, which is weighed alone."""
    return all(len(e.choices) == 1 for e in self.examples)

  def key(self, i: int) -> str:
    """The name of question i: of all on which its answer depends but the model."""
    e, task = self.examples[i], self.task
    rest = task.suffix(e) if task.suffix and not self.chat else task.normalise
    s = self.settings
    how = s.max_new, s.temperature, s.top_p, self.samples, self.lead, rest
    return keeping.key(list(map(int, self.prompts[i])), e.choices, *how)

  def cost(self, i: int) -> float:
    """About how long question i takes; a token that is written costs TOKEN that are
    read."""
    choices = sum(map(len, self.examples[i].choices)) / 4
    written = TOKEN * self.settings.max_new * self.samples
    return len(self.prompts[i]) + (choices or written)

  @property
  def lead(self) -> str:
    """What stands before an answer: that of a chat begins a message."""
    return '' if self.chat else ' '


def answers(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  task: Task,
  examples: Sequence[Example],
  shots: Sequence[Example] | Callable[[Example], Sequence[Example]] | None = None,
  settings: Settings = GREEDY,
  batch_size: int = 16,
  longest: int = 0,
) -> list[str]:
  """The model's answer to each example of a task.

  shots None: in a chat. Otherwise as a base model after these solved examples, or those
  of shots(example): the text before `task.stop`. Where every example has choices, the
  answer is the likeliest. longest: tokens of an answer, whatever the task needs.
  """
  asked = Asked.of(tokenizer, task, examples, shots, settings, longest)
  return responses(params, config, tokenizer, [asked], batch_size)[0]


def _opened_once(tokenizer, prompts):
  """Raises UserError for a second begin_of_text: it lowers scores without a word."""
  names = {number: name for name, number in tokenizer.specials.items()}
  for ids in prompts:
    if ids[0] in names and ids[:2] == ids[:1] * 2:
      raise UserError(
        f'a prompt begins with {names[ids[0]]} twice: a chat template writes it once '
        'too often: repair it'
      )


def responses(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  every: Sequence[Asked],
  batch_size: int = 16,
  room: int = 0,
) -> list[list[str]]:
  """The answers to all questions; those with rows of one size run together, so that a
  row whose answer ends is free for a question of another task.

  Where every question has choices, the answer is the likeliest; where they have one
  each, it is that one or '', by whether greedy decoding would write it. room: tokens of
  a row, at least.
  """
  found, _ = weighed(params, config, tokenizer, every, batch_size, room=room)
  return found


def weighed(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  every: Sequence[Asked],
  batch_size: int = 16,
  kept: keeping.Kept | None = None,
  seed: int = 0,
  room: int = 0,
) -> tuple[list[list], list[list[float]]]:
  """As `responses`, and the log-probability of the one choice of each question, of
  tasks whose questions have one each. kept: answers that are there, and where each is
  kept as it comes. A question of several samples has a list of answers, drawn by
  `seed`. room: tokens of a row, at least."""
  kept = kept or keeping.Kept()
  keys = [[asked.key(i) for i in range(len(asked.examples))] for asked in every]
  due, seen = [], set(kept.answers)
  for asked, names in zip(every, keys):  # a question of two tasks is asked once
    new = {name: i for i, name in reversed(list(enumerate(names))) if name not in seen}
    seen |= new.keys()
    due.append(sorted((i, name) for name, i in new.items()))
    kept.expect([asked.cost(i) for i, _ in due[-1]])
  rooms = {}
  for asked, own in zip(every, due):
    if own and asked.chooses:
      _choose(params, config, tokenizer, asked, own, kept)
    elif own:
      size = max(asked.room, room), asked.samples
      rooms.setdefault(size, []).append((asked, own))
  for (length, count), members in sorted(rooms.items()):
    given = length, members, count, batch_size, seed, kept
    _write(params, config, tokenizer, *given)
  found, logps = [], []
  for asked, names in zip(every, keys):
    own = [kept.answers[name] for name in names]
    texts = [text for text, _ in own]
    found.append(texts if asked.chooses else [_cut(text, asked) for text in texts])
    logps.append([logp for _, logp in own] if asked.forced else [])
  return found, logps


def _write(params, config, tokenizer, room, members, count, batch_size, seed, kept):
  """The model writes `count` answers to each question, in rows of `room` tokens."""
  asked = [(own, i, name) for own, due in members for i, name in due]
  # Rows of long texts need as much memory as more rows of short ones.
  batch_size = max(batch_size * ROOM // max(room, ROOM), 1)
  texts = [{} for _ in asked]

  def told(number, completion):
    i, sample = divmod(number, count)
    texts[i][sample] = tokenizer.decode(completion.ids)
    if len(texts[i]) == count:
      every = [texts[i][n] for n in range(count)]
      own, place, name = asked[i]
      kept.add(name, every if count > 1 else every[0], 0.0, own.cost(place))

  engine.generate(
    params,
    [own.prompts[i] for own, i, _ in asked],
    config,
    tokenizer.stop_ids,
    [own.settings for own, *_ in asked],
    seed=seed,
    samples=count,
    batch_size=batch_size,
    longest=room,
    told=told,
  )


def _cut(text, asked):
  """The answer in a text: all of it in a chat, else up to the task's stop; in each of
  several texts."""
  if isinstance(text, list):
    return [_cut(one, asked) for one in text]
  if asked.chat:
    return text
  text = text.strip()
  return text.split(asked.task.stop)[0] if asked.task.stop else text


def _choose(params, config, tokenizer, asked, due, kept):
  """Of each question the choice that is likeliest after its prompt; of one choice that
  one, or '' where greedy decoding writes another."""
  task, pairs, whose = asked.task, [], []
  for i, name in due:
    e, ids = asked.examples[i], asked.prompts[i]
    for choice in e.choices:
      said = tokenizer.encode(f'{asked.lead}{choice}')
      if task.suffix and not asked.chat:
        pairs.append((ids + said, tokenizer.encode(f' {task.suffix(e)}')))
      else:
        pairs.append((ids, said))
      whose.append((i, name))
  size, open_ = SIZES[task.normalise], {i: {} for i, _ in due}
  first = {i: len(whose) - 1 - n for n, (i, _) in enumerate(reversed(whose))}

  def told(number, logp, greedy):
    i, name = whose[number]
    e, found = asked.examples[i], open_[i]
    found[number - first[i]] = logp, greedy
    if len(found) < len(e.choices):
      return
    if asked.forced:
      text = e.choices[0] if greedy else ''
    else:
      scores = [found[n][0] / size(c) for n, c in enumerate(e.choices)]
      text = e.choices[int(np.argmax(scores))]
    kept.add(name, text, float(logp), asked.cost(i))

  contexts, continuations = zip(*pairs)
  likelihood.weighed(params, contexts, continuations, config, told=told)
