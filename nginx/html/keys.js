// The key-management page: asks for the list once, then searches and sorts what it got. Every answer of the API has
// its view: the list, no keys, signed out (401), over the limit (429), anything else. Names are other people's text:
// they enter the page as text nodes only, and the page's CSP (Trusted Types) refuses any other way.

const day = 24 * 60 * 60 * 1000;
const expiringWithin = 14 * day;
const element = (id) => document.getElementById(id);

let keys = [];           // as fetched: oldest first
let rows = new Map();    // key -> its table row
let hasList = false;     // a list was shown: a later fault is reported above it, not instead of it
let isLoading = false;
let faults = 0;          // in a row; the wait before the next try grows with it
let countdown = 0;       // the interval's id
let sorting = { column: 'created_at', direction: 'ascending' };

// ---- Fetching -------------------------------------------------------------------------------------------------------

function begin() {
  forgetList();
  showWaiting();
  load();
}

async function load() {
  if (isLoading) return;
  isLoading = true;
  clearInterval(countdown);
  element('table').setAttribute('aria-busy', 'true');
  element('refresh').setAttribute('aria-busy', 'true');

  let response = null;
  try {
    response = await fetch('/api/v1/keys', { credentials: 'include' });
    const body = await response.json();
    if (response.ok) showList(body, response.headers);
    else showRefusal(response, body.error);
  } catch (fault) {
    if (response?.ok) console.error(fault);
    showUnavailable(response);
  } finally {
    isLoading = false;
    element('table').setAttribute('aria-busy', 'false');
    element('refresh').setAttribute('aria-busy', 'false');
  }
}

function showRefusal(response, error) {
  if (response.status === 401) showSignedOut(error);
  else if (response.status === 429) showOverLimit(response, error);
  else showUnavailable(response, error);
}

// ---- The views ------------------------------------------------------------------------------------------------------

function showWaiting() {
  showOnly('keys');
  const waiting = element('waiting-row').content;
  element('rows').replaceChildren(...Array.from({ length: 3 }, () => waiting.cloneNode(true)));
  announce('Loading your keys.');
}

function showList(body, headers) {
  keys = body.data;
  hasList = true;
  faults = 0;
  if (keys.length === 0) {
    showBlank({ title: 'No keys yet', text: 'You have not made an API key. Once you have, it is listed here.' });
    return;
  }

  const now = Date.now();
  rows = new Map(keys.map((key) => [key, rowOf(key, now)]));
  showOnly('keys');
  showFigures(body.meta.total, now);
  showQuota(headers);
  for (const control of [element('search'), element('order'), element('refresh')]) control.disabled = false;
  sort();
  announce(`${counted(body.meta.total, 'key')} listed.`);
}

function showSignedOut(error) {
  const [title, text] = {
    missing_api_key: ['You are signed out', 'Sign in to see your API keys.'],
    expired_session: ['Your session has expired', 'Sign in again to see your API keys.'],
  }[error.code] ?? ['Your session is no longer valid', 'It was ended, or it does not belong to an active user. Sign in again.'];
  forgetList();
  element('session').hidden = true;
  showBlank({ title, text, requestId: error.request_id, signIn: true });
}

function showOverLimit(response, error) {
  const limit = response.headers.get('X-RateLimit-Limit');
  const perDay = error.details?.window === 'day';
  showNotice({
    kind: 'limited',
    title: 'Too many requests',
    text: limit
      ? `Your account may ask for this list ${counted(Number(limit), 'time')} a ${perDay ? 'day' : 'minute'}. It loads by itself when the wait is over.`
      : 'The list loads by itself when the wait is over.',
    requestId: error.request_id,
    wait: retryAfter(response) ?? 60_000,
  });
}

// An outage, an answer that makes no sense, or none at all: 2 s, 4 s, 8 s, … 60 s between tries, never less than the
// service asks for; a little at random, so that the pages of many visitors do not return in step.
function showUnavailable(response, error) {
  const wait = Math.max(retryAfter(response) ?? 0, Math.min(2_000 * 2 ** faults, 60_000));
  faults += 1;
  showNotice({
    kind: 'failed',
    title: response ? 'The service is not available' : 'The service cannot be reached',
    text: response
      ? 'Your keys could not be fetched. This page tries again by itself.'
      : 'Check your connection. This page tries again by itself.',
    requestId: error?.request_id ?? response?.headers.get('X-Request-Id'),
    wait: wait * (1 + Math.random() / 5),
    canRetry: true,
  });
}

function showNotice({ kind, title, text, requestId, wait, canRetry = false }) {
  showOnly('notice', hasList && (keys.length > 0 ? 'keys' : 'blank'));
  element('notice').dataset.kind = kind;
  element('notice-title').textContent = title;
  element('notice-text').textContent = text;
  element('retry').hidden = !canRetry;
  showRequestId('notice-id', requestId);
  countDown(Date.now() + wait);
  announce(`${title}. ${text} Next try in ${spoken(wait)}.`);
}

function showBlank({ title, text, requestId, signIn = false }) {
  showOnly('blank');
  element('blank-title').textContent = title;
  element('blank-text').textContent = text;
  element('sign-in').hidden = !signIn;
  element('refresh').disabled = signIn;
  showRequestId('blank-id', requestId);
  announce(`${title}. ${text}`);
}

// The keyboard's focus must not vanish with the section it was in.
function showOnly(...shown) {
  for (const id of ['notice', 'blank', 'keys']) {
    const section = element(id);
    if (shown.includes(id)) {
      section.hidden = false;
    } else {
      const hadFocus = section.contains(document.activeElement);
      section.hidden = true;
      if (hadFocus) element('main').focus({ preventScroll: true });
    }
  }
}

function forgetList() {
  keys = [];
  rows = new Map();
  hasList = false;
  element('rows').replaceChildren();
}

function showRequestId(id, requestId) {
  element(id).hidden = !requestId;
  element(id).querySelector('code').textContent = requestId ?? '';
}

function announce(sentence) {
  element('announcement').textContent = sentence;
}

// ---- Waiting --------------------------------------------------------------------------------------------------------

function retryAfter(response) {
  const seconds = Number(response?.headers.get('Retry-After') ?? NaN);
  return seconds > 0 ? seconds * 1000 : undefined;
}

// Measured against the clock, not by counting ticks: a page in the background ticks slowly, a sleeping one not at all.
function countDown(until) {
  const tick = () => {
    const seconds = Math.ceil((until - Date.now()) / 1000);
    element('countdown-time').textContent = clock(Math.max(seconds, 0));
    if (seconds <= 0) load();
  };
  element('countdown').hidden = false;
  countdown = setInterval(tick, 250);
  tick();
}

function clock(seconds) {
  const two = (value) => String(value).padStart(2, '0');
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  return hours > 0
    ? `${hours}:${two(minutes % 60)}:${two(seconds % 60)}`
    : `${minutes}:${two(seconds % 60)}`;
}

function spoken(milliseconds) {
  const seconds = Math.ceil(milliseconds / 1000);
  if (seconds < 120) return counted(seconds, 'second');
  const minutes = Math.ceil(seconds / 60);
  return minutes < 120 ? counted(minutes, 'minute') : counted(Math.ceil(minutes / 60), 'hour');
}

// ---- A row ----------------------------------------------------------------------------------------------------------

const states = {
  active: { rank: 0, label: 'Active' },
  expiring: { rank: 1, label: 'Expires soon' },
  expired: { rank: 2, label: 'Expired' },
  revoked: { rank: 3, label: 'Revoked' },
};

function stateOf(key, now) {
  if (key.revoked_at !== null) return 'revoked';
  if (key.expires_at === null) return 'active';
  const left = Date.parse(key.expires_at) - now;
  if (left <= 0) return 'expired';
  return left <= expiringWithin ? 'expiring' : 'active';
}

function rowOf(key, now) {
  const row = element('row').content.cloneNode(true).firstElementChild;
  const [head, stateCell, tier, scopes, requests, used, created, expires] = row.children;
  const state = stateOf(key, now);

  row.dataset.state = state;
  head.firstElementChild.textContent = key.name.trim() || 'Unnamed key';
  head.lastElementChild.textContent = key.key_prefix;
  stateCell.firstElementChild.textContent = states[state].label;
  if (state === 'revoked') stateCell.append(timeOf(key.revoked_at, 'relative'));
  tier.firstElementChild.textContent = key.tier;
  tier.lastElementChild.textContent = `${short(key.rate_limit_per_minute)}/min · ${short(key.rate_limit_per_day)}/day`;
  scopes.firstElementChild.append(...key.scopes.map(chipOf));
  if (key.scopes.length === 0) scopes.replaceChildren(noneOf('None'));
  requests.textContent = number(key.total_requests);
  used.append(key.last_used_at === null ? noneOf('Never') : timeOf(key.last_used_at, 'relative'));
  created.append(timeOf(key.created_at, 'date'));
  expires.append(key.expires_at === null ? noneOf('Never')
    : timeOf(key.expires_at, state === 'expiring' || state === 'expired' ? 'relative' : 'date'));
  return row;
}

function chipOf(scope) {
  const chip = document.createElement('li');
  chip.textContent = scope;
  return chip;
}

function noneOf(word) {
  const none = document.createElement('span');
  none.className = 'none';
  none.textContent = word;
  return none;
}

function timeOf(value, form) {
  const time = document.createElement('time');
  const date = new Date(value);
  time.dateTime = value;
  time.title = exact.format(date);
  time.textContent = form === 'date' ? dateOnly.format(date) : relative(date, Date.now());
  if (form === 'relative') time.className = 'relative';
  return time;
}

const numbers = new Intl.NumberFormat('en');
const shortNumbers = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const dateOnly = new Intl.DateTimeFormat('en', { dateStyle: 'medium' });
const exact = new Intl.DateTimeFormat('en', { dateStyle: 'full', timeStyle: 'long' });
const relatives = new Intl.RelativeTimeFormat('en');
const units = [['year', 365 * day], ['month', 30 * day], ['week', 7 * day], ['day', day], ['hour', day / 24], ['minute', day / 1440]];

const number = (value) => numbers.format(value);
const short = (value) => (value < 10_000 ? numbers : shortNumbers).format(value);
const counted = (value, noun) => `${number(value)} ${noun}${value === 1 ? '' : 's'}`;

// "5 minutes ago", "1 day ago", "in 12 days"; weeks only where days would be more than a fortnight.
function relative(date, now) {
  const distance = date.getTime() - now;
  const size = Math.abs(distance);
  if (size < units.at(-1)[1]) return distance < 0 ? 'just now' : 'in less than a minute';
  const [unit, length] = units.find(([name, span]) => size >= (name === 'week' ? expiringWithin + day : span));
  return relatives.format(Math.round(distance / length), unit);
}

// ---- Figures, searching, sorting -----------------------------------------------------------------------------------

function showFigures(total, now) {
  const perState = { active: 0, expiring: 0, expired: 0, revoked: 0 };
  for (const key of keys) perState[stateOf(key, now)] += 1;
  element('figure-total').textContent = number(total);
  element('figure-active').textContent = number(perState.active + perState.expiring);
  element('figure-expiring').textContent = number(perState.expiring);
  element('figure-expiring').classList.toggle('warning', perState.expiring > 0);
  element('figure-requests').textContent = number(keys.reduce((sum, key) => sum + key.total_requests, 0));
}

function showQuota(headers) {
  const [limit, left] = ['X-RateLimit-Limit', 'X-RateLimit-Remaining'].map((name) => headers.get(name));
  element('quota').textContent = limit && left
    ? `Rate limit: ${number(Number(left))} of ${counted(Number(limit), 'request')} left in the current window.` : '';
}

// A pasted key finds itself: the prefix is its beginning.
function search() {
  const wanted = element('search').value.trim().toLowerCase();
  let found = 0;
  for (const [key, row] of rows) {
    const prefix = key.key_prefix.toLowerCase();
    const matches = key.name.toLowerCase().includes(wanted) || prefix.includes(wanted) || wanted.startsWith(prefix);
    row.hidden = !matches;
    if (matches) found += 1;
  }
  element('count').textContent = wanted === '' ? counted(keys.length, 'key') : `${number(found)} of ${counted(keys.length, 'key')}`;
  element('table').hidden = found === 0;
  element('nothing-found').hidden = found > 0;
  element('nothing-found').textContent = 'No key has this name or prefix.';
}

const alphabetical = new Intl.Collator('en', { numeric: true, sensitivity: 'base' });

// What to compare a key by; null stands last in either direction.
function measureOf(key, column, now) {
  if (column === 'state') return states[stateOf(key, now)].rank;
  if (column.endsWith('_at')) return key[column] === null ? null : Date.parse(key[column]);
  return key[column];
}

function sort() {
  const { column, direction } = sorting;
  const sign = direction === 'ascending' ? 1 : -1;
  const now = Date.now();
  const measured = keys.map((key) => ({ key, measure: measureOf(key, column, now) }));
  measured.sort(({ measure: a }, { measure: b }) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === 'string' ? alphabetical.compare(a, b) : a - b);
  });
  element('rows').replaceChildren(...measured.map(({ key }) => rows.get(key)));

  for (const heading of document.querySelectorAll('th[data-column]')) {
    if (heading.dataset.column === column) heading.setAttribute('aria-sort', direction);
    else heading.removeAttribute('aria-sort');
  }
  element('order').value = `${column} ${direction}`;
  search();
}

// ---- What the visitor does, and time -------------------------------------------------------------------------------

element('refresh').addEventListener('click', load);
element('retry').addEventListener('click', load);
element('tools').addEventListener('submit', (event) => event.preventDefault());

element('search').addEventListener('input', () => {
  search();
  announce(`${element('count').textContent} found.`);
});

element('order').addEventListener('change', () => {
  const [column, direction] = element('order').value.split(' ');
  sorting = { column, direction };
  sort();
});

for (const heading of document.querySelectorAll('th[data-column]')) {
  heading.firstElementChild.addEventListener('click', () => {
    const again = heading.getAttribute('aria-sort') === 'ascending';
    sorting = { column: heading.dataset.column, direction: again ? 'descending' : 'ascending' };
    sort();
    announce(`Sorted by ${heading.textContent.trim().toLowerCase()}, ${sorting.direction}.`);
  });
}

// "2 minutes ago" must not stay so.
setInterval(() => {
  for (const time of document.querySelectorAll('time.relative')) {
    time.textContent = relative(new Date(time.dateTime), Date.now());
  }
}, 60_000);

addEventListener('online', () => { if (!element('notice').hidden) load(); });
// Back from another page: whoever it shows may have signed out meanwhile.
addEventListener('pageshow', (event) => { if (event.persisted) begin(); });

begin();
