"""Preference annotation (4.2.1) by an annotator that can verify the answers."""

from collections.abc import Callable
from collections.abc import Sequence

from llama3_jax.post import reject
from llama3_jax.text import chat


def preferences(
  candidates: Sequence[reject.Candidates],
  answers: Sequence[str],
  right: Callable[[int, str], bool],
  source: str = 'annotated',
  number: int = 0,
) -> list[dict]:
  """Preference rows (`prompt`, `responses` best first, `source`) of sampled answers.

  right(i, text): whether `text` answers prompt i; a tool call has no text. Rejected is
  the wrong answer with the highest reward, so that the next reward model learns from
  the errors of this one; chosen is the right answer with the highest reward or, where
  none is right, `answers[i]`, in place of an edited response. Answers that were cut off
  are not annotated. A prompt without a wrong answer gives no pair. Sampled answers are
  whole messages with their ids. number: of the round, which the rows say.
  """
  rows = []
  for i, candidate in enumerate(candidates):
    scored = zip(candidate.rewards, candidate.responses)
    ranked = sorted(scored, key=lambda pair: pair[0], reverse=True)
    finished = [response for value, response in ranked if value != reject.CUT]
    wrong = [m for m in finished if not right(i, m.content)]
    if not wrong:
      continue
    edited = chat.Message('assistant', answers[i])
    chosen = next((m for m in finished if right(i, m.content)), edited)
    prompt = [chat.fields(m) for m in candidate.prompt]
    responses = [chat.fields(m) for m in (chosen, wrong[0])]
    row = {'prompt': prompt, 'responses': responses, 'source': source}
    rows.append(row | ({'round': number} if number else {}))
  return rows
