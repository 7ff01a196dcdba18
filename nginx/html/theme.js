// Light or dark: the system's choice until the visitor makes one. Loaded before the first paint, so that nothing flashes.
'use strict';

{
  const root = document.documentElement;
  const systemIsDark = matchMedia('(prefers-color-scheme: dark)');
  const isDark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : systemIsDark.matches);

  // Storage may be refused (private windows, policies): the choice then lasts as long as the page.
  const stored = () => { try { return localStorage.getItem('theme'); } catch { return null; } };
  const store = (theme) => { try { localStorage.setItem('theme', theme); } catch { /* see above */ } };

  const chosen = stored();
  if (chosen === 'light' || chosen === 'dark') root.dataset.theme = chosen;

  document.addEventListener('DOMContentLoaded', () => {
    const button = document.getElementById('theme');
    const show = () => button.setAttribute('aria-pressed', String(isDark()));
    button.addEventListener('click', () => {
      root.dataset.theme = isDark() ? 'light' : 'dark';
      store(root.dataset.theme);
      show();
    });
    systemIsDark.addEventListener('change', show);
    button.hidden = false;
    show();
  });
}
