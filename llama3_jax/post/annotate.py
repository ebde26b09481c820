"""Preference annotation (4.2.1) by an annotator who can verify the answers."""

from collections.abc import Callable
from collections.abc import Sequence

from llama3_jax import chat
from llama3_jax.post import reject


def preferences(
  candidates: Sequence[reject.Candidates],
  answers: Sequence[str],
  right: Callable[[int, str], bool],
  source: str = 'annotated',
) -> list[dict]:
  """Preference rows (`prompt`, `responses` best first, `source`) of sampled answers.

  right(i, text): whether `text` answers prompt i; a tool call is no text. Rejected is
  the wrong answer that the reward model liked most, so the next one learns where this
  one errs; chosen is the right answer it liked most, and where none is right,
  `answers[i]`, as an annotator edits a response. Answers that were cut off are not
  shown to the annotator. A prompt without a wrong answer gives no pair. Sampled answers
  are whole messages with their ids.
  """
  rows = []
  for i, candidate in enumerate(candidates):
    scored = zip(candidate.rewards, candidate.responses)
    ranked = sorted(scored, key=lambda pair: pair[0], reverse=True)
    shown = [said for value, said in ranked if value != reject.CUT]
    wrong = [said for said in shown if not right(i, said.content)]
    if not wrong:
      continue
    edited = chat.Message('assistant', answers[i])
    chosen = next((said for said in shown if right(i, said.content)), edited)
    prompt = [chat.fields(m) for m in candidate.prompt]
    responses = [chat.fields(m) for m in (chosen, wrong[0])]
    rows.append({'prompt': prompt, 'responses': responses, 'source': source})
  return rows
