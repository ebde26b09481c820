"""Words that say what a part of a page is for, in its class, id, or short text.

A word is a measure for the model of blocks (measures.py), never a rule: what counts is
how much of the page's text is under the element that has the word in its name.
"""

import functools

import numpy as np

BEGINS = 2**14
# Groups of words in class and id. A word ending in - matches as the beginning of one.
CLASSES = {
  'article': (
    'article- artikel- articulo- articolo- story- news noticia- novost- hentry '
    'blog- blogpost- post posts postbody postcontent postentry entry entries single'
  ),
  'body': (
    'content- contenu- contenido- contenuto- conteudo- inhalt- tresc- body text '
    'texte texto testo tekst- copy prose rte richtext- wysiwyg- editor- markdown- '
    'paragraph- absatz- main- maincontent- center- middle- col column- bodytext-'
  ),
  'lead': (
    'lead intro- teasertext- summary abstract- standfirst- dek excerpt- lede '
    'vorspann- chapo- sapo deck subtitle- untertitel- subhead- entradilla-'
  ),
  'title': (
    'title- titel- titre- titulo- headline- heading- header- head kopf- tytul- caption-'
  ),
  'menu': (
    'nav navi navbar- navigation- menu- submenu- breadcrumb- breadcrumbs- crumb- '
    'krumen- pager- pagination- pagenavi- paging- prev previous next toc sitemap- '
    'tabs toolbar- topbar- nawigacja-'
  ),
  'side': (
    'sidebar- side aside- widget- rail- right left rechts- links- marginal- '
    'randspalte- seitenleiste- secondary- complementary- sub teaserbox- infobox- '
    'box'
  ),
  'foot': (
    'footer- contentinfo- foot fuss- fusszeile- bottom- colophon- impressum- imprint- '
    'copyright- legal- stopka- rodape- pie'
  ),
  'comment': (
    'comment- kommentar- commentaire- comentario- commento- komentar- reply- '
    'replies- respond- response- disqus- discussion- forum- leserbrief- reaction- '
    'reactie- yorum- guestbook- feedback- bewertung- review- rating-'
  ),
  'share': (
    'share- sharing- shariff- social- teilen- partager- compartir- facebook- '
    'twitter- pinterest- whatsapp- instagram- follow- like likes addthis- '
    'addtoany- sharedaddy- bookmark- tweet- linkedin- udostepnij-'
  ),
  'related': (
    'related- recommend- similar- aehnlich- more mehr- weitere- auch- also see '
    'linked- popular- trending- latest- recent- aktuell- meist- mostread- archive- '
    'archiv- outbrain- taboola- teaser- teasers- promo- card- cards- tile- tiles- '
    'list listing- grid items- carousel- slider- slick- swiper- gallery- galerie- '
    'verwandt- powiazane- relacionad- correlat- upsell- crosssell-'
  ),
  'author': (
    'author- autor- auteur- autore- byline- bio biography- writer- profile- '
    'avatar- vcard- about- contributor- redakteur- verfasser- gravatar-'
  ),
  'meta': (
    'meta- date- datum- time- timestamp- published- posted- info- infos- details- '
    'stats- views- data fecha- post-meta entry-meta postmeta- entrymeta- dateline- '
    'print- drucken- tools- actions- action'
  ),
  'tag': (
    'tag tags- taglist- keyword- schlagw- category- categories- kategorie- cat '
    'cats topics- topic- rubrik- label- labels- etiquet- filed taxonomy-'
  ),
  'ad': (
    'ad ads advert- adsense- adslot- anzeige- werbung- banner- sponsor- publicite- '
    'publicidad- reklama- adv google- dfp- partner- affiliate- commercial-'
  ),
  'notice': (
    'newsletter- subscribe- subscription- abo signup- paywall- cookie- consent- '
    'gdpr- privacy- datenschutz- disclaimer- notice- alert- hinweis- warning- '
    'message- donat- spende- cta calltoaction- login- register- account- popup- '
    'modal- overlay- dialog- tooltip- lightbox-'
  ),
  'media': (
    'image- img photo- foto- bild- picture- media- video- player- audio- figure- '
    'caption bildunterschrift- legende- credit- thumb- thumbnail- attachment- '
    'embed-'
  ),
  'form': (
    'form- field- input- search- suche- recherche- buscar- filter- select- button- '
    'btn- submit- captcha-'
  ),
  'hidden': (
    'hidden- hide invisible- collapsed- collapse- off screen- sr visuallyhidden- '
    'noscript- noprint- nodisplay- printonly-'
  ),
  'shop': (
    'product- produkt- price- preis- cart- warenkorb- shop- basket- shipping- '
    'versand- availability- spec specs-'
  ),
  'quote': (
    'quote- zitat- cite- citation- pullquote- blockquote- reference- footnote- '
    'fussnote- sources- quelle-'
  ),
}
# Groups of words of notices in short text, in many languages; each begins a word.
TEXTS = {
  'call': (
    'download|get the app|our app|join|become a|missing out|up to date|stay up|'
    'did you|do you like|like this|liked this|enjoyed|tell us|let us know|thank you|'
    'thanks for|support|free trial|try |herunterladen|auf dem laufenden|gefällt|'
    'lust auf|neugierig|jetzt|entdecke|erfahre|probier|kostenlos|danke für|'
    'unterstütz|werde |mach mit|télécharg|découvrez|rejoign|devenez|merci de|'
    'soutenez|descarg|descubr|únete|hazte|gracias por|apoya|baixe|participe|'
    'descubra|scarica|scopri|sostieni|grazie per|pobierz|sprawdź|przekonaj|dołącz|'
    'wesprzyj|download de|ontdek|word lid|steun|скача|поддерж|присоедин|下载|下載|'
    '加入|ダウンロード|다운로드|indir|katıl|حمل|انضم|डाउनलोड|tải|ladda ner|stáhn'
  ),
  'comment': (
    'comment|kommentar|commentaire|comentario|comentár|comentar|commenti|komentarz|'
    'komentář|reactie|reageer|reply|replies|antwort|répondre|responder|odpowiedz|'
    'yorum|комментар|коментар|ответить|评论|評論|コメント|댓글|تعليق|टिप्पणी|'
    'bình luận|leave a|schreibe einen|laisser un|deja un|dodaj|rispondi|kirjoita|'
    'kommentti'
  ),
  'related': (
    'related|read more|read also|see also|more from|more on|you may|you might|'
    'also on|recommended|recommend|continue reading|ähnliche|mehr zum|mehr zu|'
    'lesen sie|weiterlesen|das könnte|auch interess|verwandte|weitere|siehe auch|'
    'lire aussi|à lire|voir aussi|sur le même|en savoir|articles similaires|'
    'leer más|te puede|artículos relacion|ver también|noticias relacion|'
    'lea también|leia|veja|saiba mais|artigos relacion|leggi|potrebbe interess|'
    'articoli correl|czytaj|zobacz|przeczytaj|powiązane|polecamy|lees ook|'
    'lees meer|bekijk|gerelateerd|читайте|похожие|смотрите|подробнее|相关|相關|'
    '推荐|阅读更多|関連|続きを読む|おすすめ|관련|더 보기|ilgili|devamını|اقرأ|'
    'مواضيع|संबंधित|और पढ़ें|xem thêm|läs mer|läs också|lue myös|les også|læs også|'
    'další|čtěte|olvass'
    '|auch lesen|mehr lesen|mehr dazu|lesetipp|zum thema|meistgelesen|le puede'
    '|le recomend|más leíd|más inform|read next|up next|learn more|find out more'
    '|further reading|top stor|trending|most read|most popular|in case you'
    '|à découvrir|les plus lus|più letti|dowiedz się|meest gelezen'
  ),
  'share': (
    'share|sharing|tweet|pin it|follow us|follow me|teilen|folgen|partager|suivez|'
    'compartir|síguenos|compartilh|siga|condividi|seguici|udostępnij|podziel|delen|'
    'volg|поделиться|подпис|分享|シェア|ツイート|공유|paylaş|شارك|साझा|chia sẻ|'
    'dela|jaa|del på|sdílet|facebook|twitter|whatsapp|instagram|pinterest|linkedin|'
    'youtube|telegram'
  ),
  'subscribe': (
    'newsletter|subscri|sign up|sign in|log in|login|logout|register|account|inbox|'
    'e-mail|email|password|abonnier|anmeld|registrier|einloggen|passwort|abonne|'
    "s'inscrire|inscri|connexion|mot de passe|suscri|iniciar sesión|regístr|assine|"
    'cadastr|iscriviti|accedi|zapisz|zaloguj|zarejestruj|subskry|aanmelden|'
    'inloggen|inschrijv|войти|регистра|登录|注册|訂閱|ログイン|登録|会員|로그인|'
    '구독|가입|giriş|abone|اشترك|सदस्यता|đăng ký|đăng nhập|prenumer|logga|tilaa|'
    'kirjaudu|přihlá'
  ),
  'legal': (
    'copyright|©|all rights|rights reserved|terms of|terms and|privacy|cookie|'
    'disclaimer|imprint|alle rechte|impressum|datenschutz|agb|nutzungsbed|'
    'tous droits|mentions légales|confidential|politique de|todos los derechos|'
    'aviso legal|política|todos os direitos|tutti i diritti|wszelkie prawa|'
    'polityka|regulamin|alle rechten|voorwaarden|privacybeleid|все права|политика|'
    '版权|版權|著作権|無断|プライバシー|저작권|무단|telif|tüm hakları|حقوق|'
    'सर्वाधिकार|bản quyền|upphovsr|powered by|proudly'
  ),
  'author': (
    'by |written by|posted by|author|about the|about author|editor|reporting by|'
    'editing by|von |autor|über den|über die|redaktion|geschrieben von|verfasst|'
    "par |auteur|l'auteur|por |escrito por|redacción|di |autore|scritto da|przez|"
    'napisał|door |geschreven|автор|作者|记者|編輯|编辑|著者|ライター|文:|기자|'
    '글쓴이|yazar|الكاتب|लेखक|tác giả|skriven av|kirjoittaja|av '
  ),
  'date': (
    'published|updated|posted|last modified|first published|min read|minute|'
    'january|february|march|april|june|july|august|september|october|november|'
    'december|monday|tuesday|wednesday|thursday|friday|saturday|sunday|'
    'veröffentlicht|aktualisiert|erstellt|stand:|uhr|publié|mis à jour|publicado|'
    'actualizado|atualizado|pubblicato|aggiornato|opublikowano|dodano|aktualizacja|'
    'gepubliceerd|geplaatst|опубликован|обновлен|发布|發布|更新|公開|投稿|입력|'
    '수정|yayın|güncel|نشر|प्रकाशित|đăng ngày|publicerad|julkaistu|publikováno|'
    'januar|februar|märz|mai|juni|juli|oktober|dezember|enero|février|stycz|января'
  ),
  'tag': (
    'tags|tagged|tag:|categories|category|filed under|topics|keywords|labels|'
    'schlagw|kategorie|themen|stichw|mots-clés|catégorie|étiquettes|etiquetas|'
    'categoría|temas|categoria|categorie|argomenti|kategorie|tagi|słowa|trefwoord|'
    'onderwerp|теги|рубрика|метки|标签|標籤|分类|タグ|カテゴリ|태그|분류|etiket|'
    'kategori|الوسوم|टैग|thẻ|nyckelord|avainsanat|štítky'
  ),
  'media': (
    'photo|image|picture|getty|credit|courtesy|video|watch|gallery|caption|foto|'
    'bild|bildquelle|quelle:|grafik|crédit|légende|fotograf|imagen|fuente|fonte|'
    'zdjęcie|źródło|fot.|beeld|bron:|фото|источник|图片|图:|来源|写真|画像|出典|'
    '사진|출처|görsel|kaynak|صورة|चित्र|ảnh|kuva|källa'
    '|shutterstock|istock|unsplash|pixabay|pexels|depositphotos|adobe stock'
    '|reuters|afp|dpa|imago|symbolbild|titelbild|beitragsbild|archivbild'
    '|abbildung|screenshot|illustration|by-sa'
  ),
  'ad': (
    'advert|sponsor|promot|affiliate|donat|support us|buy now|add to cart|shop|'
    'anzeige|werbung|jetzt kaufen|in den warenkorb|spende|publicité|acheter|'
    'ajouter|publicidad|anuncio|comprar|publicidade|anúncio|pubblicità|acquista|'
    'reklama|kup|koszyk|advertentie|reclame|bestellen|реклама|купить|广告|廣告|'
    '購買|広告|購入|광고|구매|reklam|satın|إعلان|विज्ञापन|quảng cáo|annons|mainos|'
    'continue your|click here|klicken sie|cliquez|haz clic|clique|clicca|kliknij|'
    'klik|нажмите|点击|クリック|클릭'
    '|commission|provision|may earn|amazon|rabatt|gutschein|coupon|discount'
    '|partnerlink|verlinkung|patreon|paypal|ko-fi'
  ),
  'menu': (
    'home|menu|search|skip to|back to|go to|previous|next|top|contact|about us|'
    'sitemap|startseite|suche|zurück|nach oben|vorherige|nächste|kontakt|accueil|'
    'recherche|retour|précédent|suivant|haut de|inicio|buscar|volver|anterior|'
    'siguiente|início|voltar|próximo|cerca|indietro|precedente|successivo|strona|'
    'szukaj|wróć|poprzedni|następny|zoeken|terug|vorige|volgende|главная|поиск|'
    'назад|首页|搜索|返回|上一篇|下一篇|ホーム|検索|戻る|前へ|次へ|홈|검색|이전|'
    '다음|ana sayfa|ara|geri|print|drucken|imprimer|imprimir|stampa|drukuj|'
    'afdrukken'
  ),
}


@functools.cache
def table(which: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(uint64 hashes, int64 bits | exact << 32, uint8 begins) of a hash table.

  It has 4,096 slots. begins has BEGINS places, by the hash of three bytes: 1 where a
  word begins with them, so that others are not looked for.

  Args:
    which: 'classes' or 'texts'.
  """
  keys, values = np.zeros(4096, np.uint64), np.zeros(4096, np.int64)
  begins = np.zeros(BEGINS, np.uint8)
  for bit, words in enumerate((CLASSES if which == 'classes' else TEXTS).values()):
    if which == 'classes':
      rows = [(w.rstrip('-'), not w.endswith('-')) for w in words.split()]
    else:
      rows = [(form, False) for w in words.split('|') for form in _forms(w)]
    for word, exact in rows:
      _put(keys, values, _hash(word.encode()), bit, exact)
      begins[_hash(word.encode()[:3]) % BEGINS] = 1
  return keys, values, begins


def _forms(word):
  """A word in the cases it has; ASCII letters are folded by the reader."""
  return {_fold(form) for form in (word, word.capitalize(), word.upper())}


def _fold(word):
  return ''.join(c.lower() if c < '\x80' else c for c in word)


def _put(keys, values, key, bit, exact):
  slot = key & 4095
  while keys[slot] not in (0, key):
    slot = (slot + 1) & 4095
  keys[slot] = key
  values[slot] |= 1 << bit | int(exact) << 32


def _hash(word):
  value = 1469598103934665603
  for byte in word:
    value = (value ^ byte) * 1099511628211 % 2**64
  return value or 1
