"""URL rules: blocked hosts, and one document a URL, the newest (3.1.1)."""

import urllib.parse

from llama3_jax.curate import documents

TRACKING = ('utm_', 'fbclid', 'gclid', 'sessionid')
PORTS = {'http': ':80', 'https': ':443'}


def normalise(url):
  """The form under which two URLs are the same page.

  Scheme and fragment go (http and https, and anchors, are one page), the host is lower
  case, tracking parameters go, the others are sorted.
  """
  try:
    parts = urllib.parse.urlsplit(url.strip())
  except ValueError:
    return url
  host = parts.netloc.lower().removesuffix(PORTS.get(parts.scheme.lower(), ':'))
  query = sorted(
    pair for pair in parts.query.split('&') if pair and not pair.startswith(TRACKING)
  )
  path = parts.path.rstrip('/')
  return f'{host}{path}{"?" if query else ""}{"&".join(query)}'


def step_block(table, hosts):
  """Drops pages of blocked hosts and of their subdomains."""
  blocked = {host.lower() for host in hosts}
  drops = {}
  rows = documents.alive(table) if blocked else []
  for row, url in zip(rows, documents.take(table, 'url', rows)):
    labels = _host(url).split('.')
    if any('.'.join(labels[i:]) in blocked for i in range(len(labels))):
      drops[row] = ('url.blocked', None)
  return documents.drop(table, drops)


def step_newest(table):
  """Keeps the newest document of each URL; of equal dates the first."""
  rows = documents.alive(table)
  best, drops = {}, {}
  dates = documents.take(table, 'date', rows)
  for row, url, date in zip(rows, documents.take(table, 'url', rows), dates):
    key = normalise(url)
    if key in best and (date or '') <= best[key][0]:
      drops[row] = ('url.older', None)
      continue
    if key in best:
      drops[best[key][1]] = ('url.older', None)
    best[key] = (date or '', row)
  return documents.drop(table, drops)


def _host(url):
  """The host name; '' when there is none or the URL is broken."""
  try:
    return urllib.parse.urlsplit(url or '').hostname or ''
  except ValueError:
    return ''
