"""Preference annotation (4.2.1) by an annotator who can verify the answers."""

from collections.abc import Callable
from collections.abc import Sequence

from llama3_jax.post import reject


def preferences(
  candidates: Sequence[reject.Candidates],
  answers: Sequence[str],
  right: Callable[[int, str], bool],
  source: str = 'annotated',
) -> list[dict]:
  """Preference rows (`prompt`, `responses` best first, `source`) of sampled answers.

  right(i, text): whether `text` answers prompt i. Rejected is the wrong answer that the
  reward model liked most, so the next one learns where this one errs; chosen is the
  right answer it liked most, and where none is right, `answers[i]`, as an annotator
  edits a response. Answers that were cut off are not shown to the annotator. A prompt
  without a wrong answer gives no pair.
  """
  rows = []
  for i, candidate in enumerate(candidates):
    ranked = sorted(zip(candidate.rewards, candidate.responses), reverse=True)
    shown = [text for value, text in ranked if value != reject.CUT]
    wrong = [text for text in shown if not right(i, text)]
    if not wrong:
      continue
    chosen = next((text for text in shown if right(i, text)), answers[i])
    prompt = [{'role': m.role, 'content': m.content} for m in candidate.prompt]
    rows.append({'prompt': prompt, 'responses': [chosen, wrong[0]], 'source': source})
  return rows
