"""Generated pages with known text: common themes around sentences in many languages.

Sentences are FLORES-200's (CC BY-SA 4.0, read from the assets, not committed); themes
and notices are made here. Names of a page's parts are drawn from what themes in use
call them, also names of menus, shares and sidebars on what holds the article, so that a
name alone decides nothing. The same seed gives the same pages.
"""

import html
import pathlib
import random

LANGUAGES = {
  'en': 'eng_Latn', 'de': 'deu_Latn', 'fr': 'fra_Latn', 'es': 'spa_Latn',
  'it': 'ita_Latn', 'pt': 'por_Latn', 'nl': 'nld_Latn', 'pl': 'pol_Latn',
  'ru': 'rus_Cyrl', 'tr': 'tur_Latn', 'sv': 'swe_Latn', 'cs': 'ces_Latn',
  'zh': 'zho_Hans', 'ja': 'jpn_Jpan', 'ko': 'kor_Hang', 'ar': 'arb_Arab',
  'hi': 'hin_Deva', 'vi': 'vie_Latn',
}  # fmt: skip
# share | related | comments | form | newsletter | cookies | rights | author | date |
# tags | advertisement | more | home
NOTICES = {
  'en': (
    'Share this|Related articles|Comments|Leave a reply. Your email will not be '
    'published.|Sign up for our newsletter and never miss a story.|We use '
    'cookies to improve this site.|All rights reserved.|By {}|Published on {}|'
    'Tags: {}|Advertisement|Read more|Home'
  ),
  'de': (
    'Artikel teilen|Das könnte Sie auch interessieren|Kommentare|Schreiben Sie '
    'einen Kommentar. Ihre E-Mail-Adresse wird nicht veröffentlicht.|Melden Sie '
    'sich für unseren Newsletter an.|Wir verwenden Cookies, um die Seite zu '
    'verbessern.|Alle Rechte vorbehalten.|Von {}|Veröffentlicht am {}|'
    'Schlagwörter: {}|Anzeige|Weiterlesen|Startseite'
  ),
  'fr': (
    'Partager cet article|À lire aussi|Commentaires|Laisser un commentaire. '
    'Votre adresse ne sera pas publiée.|Abonnez-vous à notre lettre '
    'd’information.|Ce site utilise des cookies.|Tous droits réservés.|Par {}|'
    'Publié le {}|Mots-clés : {}|Publicité|Lire la suite|Accueil'
  ),
  'es': (
    'Compartir|Noticias relacionadas|Comentarios|Deja un comentario. Tu correo '
    'no será publicado.|Suscríbete a nuestro boletín.|Usamos cookies para '
    'mejorar el sitio.|Todos los derechos reservados.|Por {}|Publicado el {}|'
    'Etiquetas: {}|Publicidad|Leer más|Inicio'
  ),
  'it': (
    'Condividi|Articoli correlati|Commenti|Lascia un commento. La tua email non '
    'sarà pubblicata.|Iscriviti alla nostra newsletter.|Questo sito usa i '
    'cookie.|Tutti i diritti riservati.|Di {}|Pubblicato il {}|Etichette: {}|'
    'Pubblicità|Leggi tutto|Home'
  ),
  'pt': (
    'Compartilhe|Artigos relacionados|Comentários|Deixe um comentário. O seu '
    'e-mail não será publicado.|Assine a nossa newsletter.|Este site usa '
    'cookies.|Todos os direitos reservados.|Por {}|Publicado em {}|Tags: {}|'
    'Publicidade|Leia mais|Início'
  ),
  'nl': (
    'Deel dit artikel|Lees ook|Reacties|Geef een reactie. Je e-mailadres wordt '
    'niet gepubliceerd.|Schrijf je in voor de nieuwsbrief.|Deze site gebruikt '
    'cookies.|Alle rechten voorbehouden.|Door {}|Gepubliceerd op {}|Trefwoorden: '
    '{}|Advertentie|Lees meer|Startpagina'
  ),
  'pl': (
    'Udostępnij|Zobacz także|Komentarze|Dodaj komentarz. Twój adres e-mail nie '
    'zostanie opublikowany.|Zapisz się na nasz newsletter.|Strona używa plików '
    'cookie.|Wszelkie prawa zastrzeżone.|Autor: {}|Opublikowano {}|Tagi: {}|'
    'Reklama|Czytaj więcej|Strona główna'
  ),
  'ru': (
    'Поделиться|Читайте также|Комментарии|Оставить комментарий. Ваш адрес не '
    'будет опубликован.|Подпишитесь на рассылку.|Сайт использует файлы cookie.|'
    'Все права защищены.|Автор: {}|Опубликовано {}|Теги: {}|Реклама|Подробнее|'
    'Главная'
  ),
  'tr': (
    'Paylaş|İlgili haberler|Yorumlar|Yorum yap. E-posta adresiniz yayınlanmaz.|'
    'Bültenimize abone olun.|Bu site çerez kullanır.|Tüm hakları saklıdır.|'
    'Yazar: {}|Yayın tarihi: {}|Etiketler: {}|Reklam|Devamını oku|Ana sayfa'
  ),
  'sv': (
    'Dela artikeln|Läs också|Kommentarer|Lämna en kommentar. Din e-post '
    'publiceras inte.|Prenumerera på vårt nyhetsbrev.|Vi använder kakor.|Alla '
    'rättigheter förbehållna.|Av {}|Publicerad {}|Taggar: {}|Annons|Läs mer|Hem'
  ),
  'cs': (
    'Sdílet|Související články|Komentáře|Napsat komentář. Váš e-mail nebude '
    'zveřejněn.|Přihlaste se k odběru novinek.|Tento web používá cookies.|'
    'Všechna práva vyhrazena.|Autor: {}|Publikováno {}|Štítky: {}|Reklama|Číst '
    'dále|Domů'
  ),
  'zh': (
    '分享|相关文章|评论|发表评论。您的邮箱不会被公开。|订阅我们的新闻邮件。|'
    '本网站使用Cookie。|版权所有。|作者：{}|发布时间：{}|标签：{}|广告|阅读更多|'
    '首页'
  ),
  'ja': (
    'シェアする|関連記事|コメント|'
    'コメントを残す。メールアドレスは公開されません。|メールマガジンに登録する。|'
    '当サイトはクッキーを使用します。|無断転載を禁じます。|著者：{}|公開日：{}|'
    'タグ：{}|広告|続きを読む|ホーム'
  ),
  'ko': (
    '공유하기|관련 기사|댓글|댓글을 남겨주세요. 이메일은 공개되지 않습니다.|'
    '뉴스레터를 구독하세요.|이 사이트는 쿠키를 사용합니다.|무단 전재 금지.|{} '
    '기자|입력 {}|태그: {}|광고|더 보기|홈'
  ),
  'ar': (
    'شارك|مقالات ذات صلة|التعليقات|اترك تعليقا. لن يتم نشر بريدك.|اشترك في '
    'النشرة البريدية.|يستخدم هذا الموقع ملفات تعريف الارتباط.|جميع الحقوق '
    'محفوظة.|الكاتب: {}|نشر في {}|الوسوم: {}|إعلان|اقرأ المزيد|الرئيسية'
  ),
  'hi': (
    'साझा करें|संबंधित लेख|टिप्पणियाँ|टिप्पणी लिखें। आपका ईमेल प्रकाशित नहीं '
    'होगा।|हमारे समाचार पत्र की सदस्यता लें।|यह साइट कुकी का उपयोग करती है।|'
    'सर्वाधिकार सुरक्षित।|लेखक: {}|प्रकाशित {}|टैग: {}|विज्ञापन|और पढ़ें|होम'
  ),
  'vi': (
    'Chia sẻ|Bài viết liên quan|Bình luận|Để lại bình luận. Email của bạn sẽ '
    'không được công khai.|Đăng ký nhận bản tin.|Trang này sử dụng cookie.|Đã '
    'đăng ký bản quyền.|Tác giả: {}|Đăng ngày {}|Thẻ: {}|Quảng cáo|Xem thêm|'
    'Trang chủ'
  ),
}
(
  SHARE, RELATED, COMMENTS, FORM, LETTER, COOKIES, RIGHTS, AUTHOR, DATE, TAGS, ADVERT,
  MORE, HOME,
) = range(13)  # fmt: skip
# Names of what holds the article: outer, middle, inner. `-` is a tag without a name.
OUTER = (
  'div#page|div#wrapper|div.site-container|div.container|div.off-canvas-wrap|div#app|'
  'div.main-menu off-canvas|div#navigation-container|header.h|div.wrap|div#content|'
  'div.l-page has-sidebar|div.print-only|main.-|div.layout|aside.direct|center.-'
).split('|')
MIDDLE = (
  'main.content|div.content-sidebar-wrap|div#primary|div.content-area|section.content|'
  'main#main|div.u-grid-row is-collapsed|div.col-md-8|div.two-thirds column|td.-|'
  'div.section hidden|div.blog-posts hfeed|div.region region-content|div.node|div.tabs|'
  'div.single-post|section.article-section|div.kommentar-seite|div.shop-content'
).split('|')
INNER = (
  'article.post|article.hentry promoted|article.post category-social-media tag-share|'
  'div.entry-content|div.post-body|div.entry-content no-share|div.entry share|div.rte|'
  'div.article__body|div.text|div.story-body|div.field-item|section.-|div.td-post-content|'
  'div.mw-parser-output|figcaption.-|div.live-comment|noscript.-|div.-|div.artikel-text|'
  'div.contenido|div.c-richtext|blockquote.-|div.related-wrap|div.markdown-body|'
  'div.product-description|div.newsletter-archive|div.caption-text|td.body|li.item'
).split('|')
BOXES = {
  RELATED: (
    'aside.related|div.related-posts|section.more-stories|div.teaser-list|'
    'div#recommended|div.also|ul.recent|div.block|section.-|div.grid'
  ),
  COMMENTS: (
    'section#comments|div.comments|div#disqus|section#replys|div.discussion|'
    'ol.commentlist|div.-'
  ),
  LETTER: ('div.newsletter|form.signup|div.cta|section.subscribe|div.box|aside.-|p.-'),
  COOKIES: ('div.cookie-banner|div#consent|div.notice|div.gdpr|div.-'),
  RIGHTS: ('footer.-|div#footer|div.site-info|footer.footer|div.bottom|p.-'),
  AUTHOR: (
    'div.author-box|div.author-description|div.bio|section.vcard|div.about|div.-'
  ),
  TAGS: ('div.tags|p.post-meta|footer.entry-meta|ul.taglist|div.categories|p.-'),
}


def sentences(folder: pathlib.Path) -> dict[str, list[str]]:
  """Sentences of each language."""
  found = {}
  for code, name in LANGUAGES.items():
    paths = sorted(folder.rglob(f'{name}.*'))
    found[code] = paths[0].read_text('utf-8').splitlines() if paths else []
  return {code: rows for code, rows in found.items() if rows}


def pages(
  folder: pathlib.Path, count: int, seed: int = 0
) -> list[tuple[str, str, str]]:
  """(page, text that it should give, name of its theme)."""
  text, draw = sentences(folder), random.Random(seed)
  return [_page(draw, text, i) for i in range(count)]


def _tag(draw, name, inner):
  tag, _, rest = name.replace('#', '.#').partition('.')
  key = 'id' if rest.startswith('#') else 'class'
  rest = rest.lstrip('#')
  if tag == 'li':
    return f'<ul><li class="{rest}">{inner}</li></ul>'
  named = '' if rest == '-' else f' {key}="{rest}"'
  if tag == 'td':
    return f'<table><tr><td{named}>{inner}</td></tr></table>'
  return f'<{tag}{named}>{inner}</{tag}>'


def _page(draw, text, number):
  code = draw.choice(sorted(text))
  rows, notice = text[code], NOTICES[code].split('|')
  gap = '' if code in ('zh', 'ja') else ' '

  def say(low, high):
    return html.escape(gap.join(draw.choices(rows, k=draw.randint(low, high))))

  truth, body = _article(draw, say)
  box = _boxes(draw, say, notice)
  names = [draw.choice(part) for part in (OUTER, MIDDLE, INNER)]
  head = _head(draw, say, notice, box, truth)
  inside = [box(k) for k in (AUTHOR, TAGS, SHARE, LETTER) if draw.random() < 0.4]
  after = [box(k) for k in (RELATED, COMMENTS, AUTHOR, TAGS) if draw.random() < 0.5]
  if draw.random() < 0.3 and len(body) > 3:
    body.insert(len(body) // 2, box(draw.choice((RELATED, LETTER, ADVERT, MORE))))
  page = _tag(draw, names[2], head + ''.join(body) + ''.join(inside))
  if draw.random() < 0.6:
    page = _tag(draw, names[1], page + ''.join(after))
    after = []
  side = ''.join(box(draw.choice((RELATED, LETTER, AUTHOR, TAGS))) for _ in range(2))
  side = _tag(draw, draw.choice(('aside.sidebar', 'div.col', 'div#secondary')), side)
  page += ''.join(after) + (side if draw.random() < 0.6 else '')
  page = _tag(draw, names[0], _menu(draw, say, notice) + page + box(RIGHTS))
  page = f'<html lang="{code}"><head><title>{say(1, 1)[:60]}</title></head><body>{page}'
  return page + box(COOKIES), html.unescape('\n'.join(truth)), f'made{number % 30}'


def _article(draw, say):
  truth, body = [], []

  def add(form, part):
    truth.append(part)
    body.append(form.format(part))

  form = draw.choice(('<p>{}</p>', '<p>{}</p>', '<div>{}</div>', '{}<br><br>'))
  seen = draw.choice((0, 0, 0.1, 0.4))
  for _ in range(draw.choice((1, 2, 3, 4, 6, 9, 14))):
    kind = draw.random()
    if draw.random() < seen:
      body.append('<img src="/p.jpg">')
    if kind < 0.72:
      add(form, say(1, 4))
    elif kind < 0.8:
      add('<h2>{}</h2>', say(1, 1)[:50])
      add(form, say(1, 3))
    elif kind < 0.88:
      add(form, say(1, 1)[:60] + ':')
      items = [say(1, 1)[:70] for _ in range(draw.randint(2, 6))]
      truth.extend(items)
      body.append('<ul>' + ''.join(f'<li>{item}</li>' for item in items) + '</ul>')
    elif kind < 0.94:
      add('<blockquote><p>{}</p></blockquote>', say(1, 2))
    else:
      cells = [[say(1, 1)[:20] for _ in range(3)] for _ in range(draw.randint(3, 8))]
      truth.extend('\t'.join(row) for row in cells)
      lines = ('<td>' + '</td><td>'.join(row) + '</td>' for row in cells)
      body.append('<table><tr>' + '</tr><tr>'.join(lines) + '</tr></table>')
  return truth, body


def _head(draw, say, notice, box, truth):
  parts = [f'<h1>{say(1, 1)[:60]}</h1>']
  if draw.random() < 0.5:
    date = f'{draw.randint(1, 28)}.{draw.randint(1, 12)}.20{draw.randint(10, 26)}'
    parts.append(f'<p class="meta">{notice[DATE].format(date)}</p>')
  if draw.random() < 0.4:
    parts.append(f'<span class="byline">{notice[AUTHOR].format(_person(draw))}</span>')
  if draw.random() < 0.35:
    lead = say(1, 2)
    truth.insert(0, lead)
    parts.append(f'<p class="{draw.choice(("lead", "intro", "deck"))}">{lead}</p>')
  if draw.random() < 0.3:
    parts.append(box(SHARE))
  joined = ''.join(parts)
  return f'<header>{joined}</header>' if draw.random() < 0.4 else joined


def _person(draw):
  first = draw.choice(('Anna', 'Jan', 'Li', 'Omar', 'Maria', 'Ivan', 'Yuki', 'Jo'))
  return f'{first} {draw.choice(("Novak", "Sailor", "Kim", "Garcia", "Berg", "Rossi"))}'


def _menu(draw, say, notice):
  items = [notice[HOME]] + [say(1, 1)[:14] for _ in range(draw.randint(3, 12))]
  links = ''.join(f'<li><a href="/{i}">{item}</a></li>' for i, item in enumerate(items))
  name = draw.choice(('nav.-', 'div.menu', 'header.site-header', 'div#top', 'div.-'))
  return _tag(draw, name, f'<ul>{links}</ul>')


def _boxes(draw, say, notice):
  def box(kind):
    if kind == SHARE:
      links = ''.join(
        f'<a href="/s">{name}</a> ' for name in ('Facebook', 'Twitter', 'WhatsApp')
      )
      name = draw.choice(('div.share', 'div.social', 'div.x', 'ul.-'))
      return _tag(draw, name, f'{notice[SHARE]} {links}')
    if kind == ADVERT:
      return f'<div class="ad"><p>{notice[ADVERT]}</p></div>'
    if kind == MORE:  # a line between two paragraphs
      link = f'<a href="/m">{say(1, 1)[:60]}</a>'
      return f'<p>{draw.choice((notice[MORE], notice[RELATED]))}: {link}</p>'
    name = draw.choice(BOXES[kind].split('|'))
    return _tag(draw, name, _inside(draw, say, notice, kind))

  return box


def _inside(draw, say, notice, kind):
  image = draw.choice(('', '<img src="/t.jpg">'))
  if kind == RELATED:
    teasers = ''.join(
      f'<div class="item">{image}<h3><a href="/{k}">{say(1, 1)[:50]}</a></h3>'
      + (f'<p>{say(1, 1)[:120]}…</p>' if draw.random() < 0.5 else '')
      + (
        f'<a href="/{k}">{notice[MORE]}</a></div>' if draw.random() < 0.5 else '</div>'
      )
      for k in range(draw.randint(2, 6))
    )
    return f'<h2>{notice[RELATED]}</h2>{teasers}'
  if kind == COMMENTS:
    rows = ''.join(
      f'<div class="c"><b>{_person(draw)}</b> <span>{k + 1}.2.2021</span>'
      f'<p>{say(1, 2)}</p></div>'
      for k in range(draw.randint(0, 4))
    )
    form = f'<form><p>{notice[FORM]}</p><input><textarea></textarea></form>'
    return f'<h3>{notice[COMMENTS]}</h3>{rows}{form}'
  if kind == AUTHOR:
    name = _person(draw)
    return (
      f'{image}<h4>{notice[AUTHOR].format(name)}</h4><p>{name}. {say(1, 1)[:110]}</p>'
    )
  if kind == TAGS:
    words = ', '.join(f'<a href="/t">{say(1, 1)[:9]}</a>' for _ in range(3))
    return f'<span>{notice[TAGS].format(words)}</span>'
  if kind == RIGHTS:
    return (
      f'<p>© 2024 {_person(draw)}. {notice[RIGHTS]}</p><a href="/i">{notice[HOME]}</a>'
    )
  field = draw.choice(('', '<input type="email">'))
  return f'<p>{notice[kind]}</p>{field}<button>OK</button>'
