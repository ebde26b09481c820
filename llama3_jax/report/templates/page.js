// Draws every figure with the colours of the page, and again when the reader's system
// changes between light and dark. Colours named `role:N` in a figure are looked up here.
const figures = JSON.parse(document.getElementById('figures').textContent);
const dark = window.matchMedia('(prefers-color-scheme: dark)');
const ROLES = {
  light: ['#2563b8', '#c4581f', '#1d8a68', '#8a4ca8', '#a87a0c', '#5d6673', '#b83a68'],
  dark: ['#6ea6f2', '#e8905a', '#55c29d', '#c190dc', '#d9b04a', '#9aa4b2', '#ea86a9'],
};
const SCALE = {
  light: [[0, '#f3efe7'], [0.5, '#8fb4e3'], [1, '#1f56a3']],
  dark: [[0, '#23272d'], [0.5, '#33598f'], [1, '#86b6f7']],
};
function paint(value, mode) {
  if (typeof value === 'string') {
    if (value.startsWith('role:')) return ROLES[mode][Number(value.slice(5)) % 7];
    if (value === 'scale:') return SCALE[mode];
    if (value === 'ink:') return mode === 'dark' ? '#e6e7e9' : '#1d1f23';
    if (value === 'soft:') return mode === 'dark' ? '#9aa1ac' : '#5d636e';
    if (value === 'line:') return mode === 'dark' ? '#30343a' : '#e3e0da';
    return value;
  }
  if (Array.isArray(value)) return value.map((item) => paint(item, mode));
  if (value && typeof value === 'object') {
    return Object.fromEntries(
      Object.entries(value).map(([name, item]) => [name, paint(item, mode)]));
  }
  return value;
}
function draw() {
  const mode = dark.matches ? 'dark' : 'light';
  for (const [name, figure] of Object.entries(figures)) {
    const place = document.getElementById(`figure-${name}`);
    const painted = paint(figure, mode);
    const narrow = place.clientWidth < 480;
    const layout = painted.layout;
    layout.autosize = !layout.width;
    if (narrow) {
      layout.margin = {...layout.margin, l: Math.min(layout.margin.l, 46), r: 10};
      layout.font = {...layout.font, size: 11};
    }
    Plotly.react(place, painted.data, layout,
      {displayModeBar: false, responsive: true, scrollZoom: false});
  }
}
draw();
dark.addEventListener('change', draw);
