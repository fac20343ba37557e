// The page: what the reader moves, and the drawing of it. `state` is all there is to know; draw() shows it.

const TAB10 = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",       // matplotlib's, as in our other figures
  "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];
const TILES = 20;                       // rows of the decoded manifold
const STRIP = 9;                        // pictures on the way from A to B
const WALK = 4000, STILLS = 8;          // milliseconds from A to B; without motion, so many still pictures, one a second
const LENS = 132;                       // pixels, a side of the lens over an ellipse that is small
const STEP = 0.05, LONG_STEP = 0.5;     // of an arrow key, in units of z

const $ = (id) => document.getElementById(id);
const all = (selector) => document.querySelectorAll(selector);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

let data, models, language;
const state = {
  view: "map",                          // "map", "sliders" or "labels"
  z: {},                                // for each view, the point that is decoded (J)
  y: 0,                                 // the label under which the conditional model decodes
  strokes: [],                          // the drawing: lists of [x, y], the pad is 1 x 1
  x: null, xLabel: null,                // the image, and its label: that of a test image, or null
  told: 0, guess: null,                 // the label that the conditional encoder is told, and its guess of a drawing's
  posterior: {},                        // for each view, {mu, logvar} of the image
  nextImage: 0,
  walk: { from: null, to: null, t: 0, choosing: 0, playing: false },
};

// ---- what happens ----------------------------------------------------------------------------------------------------

function setZ(view, z) {
  state.z[view] = z;
  redraw();
}

// A new image x: every model says where it belongs, and its point goes to the posterior mean.
function setImage(x) {
  pause();
  state.x = x;
  for (const view in models) setPosterior(view);
}

function setPosterior(view) {
  state.posterior[view] = state.x && encode(models[view], state.x, state.told);
  if (state.x) setZ(view, state.posterior[view].mu);
  redraw();
}

function setDrawing() {
  const gray = imageOf(state.strokes, data.imageShape, data.box), bernoulli = data.likelihood === "bernoulli";
  const x = bernoulli ? binarize(gray) : gray;
  state.xLabel = null;
  state.guess = models.labels && bernoulli ? guessLabel(models.labels, x) : null;
  if (state.guess !== null) state.told = state.y = state.guess;
  setImage(x);
}

function clear() {
  state.strokes = [];
  setImage(null);
}

function takeTestImage() {
  const i = state.nextImage, labels = data.imageLabels;
  state.nextImage = (i + 1) % data.imageCount;
  state.strokes = [];
  state.xLabel = labels ? labels[i] : null;
  if (models.labels) state.told = state.y = labels[i];
  setImage(data.testImages[i]);
}

function drawFromPosterior() {
  const { mu, logvar } = state.posterior[state.view];
  pause();
  setZ(state.view, reparameterize(mu, logvar, normals(mu.length)));
}

function drawFromPrior(view) {
  const zeros = new Float64Array(models[view].latent);
  setZ(view, reparameterize(zeros, zeros, normals(zeros.length)));
}

function setView(view) {
  pause();
  state.view = view;
  for (const name in models) {
    const tab = $(`tab-${name}`), chosen = name === view;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    $(`view-${name}`).hidden = !chosen;
  }
  $("told").hidden = view !== "labels";
  $("z").hidden = view !== "map";
  redraw();
}

// ---- the walk from A to B --------------------------------------------------------------------------------------------

// z = (1 - t) A + t B
function between({ from, to }, t) {
  return from.map((value, j) => (1 - t) * value + t * to[j]);
}

function setAlong(t) {
  state.walk.t = t;
  setZ("map", between(state.walk, t));
}

function choosePoint() {
  const walk = state.walk;
  if (walk.choosing === 1) Object.assign(walk, { from: state.z.map, to: null, choosing: 2 });
  else {
    Object.assign(walk, { to: state.z.map, choosing: 0, t: 0 });
    if (!calm.matches) play();
  }
  redraw();
}

function play() {
  state.walk.playing = true;
  const began = performance.now() - state.walk.t * (calm.matches ? STILLS * 1000 : WALK);
  const step = (now) => {
    if (!state.walk.playing) return;
    let phase = Math.max(0, now - began) / (calm.matches ? STILLS * 1000 : WALK);
    if (calm.matches) phase = Math.floor(phase * STILLS) / STILLS;
    setAlong(1 - Math.abs(1 - phase % 2));                            // there and back
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

function pause() {
  state.walk.playing = false;
  redraw();
}

// ---- words and numbers -----------------------------------------------------------------------------------------------

function say(key, values = {}) {
  return TEXT[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function number(value, digits = 2) {
  return value.toFixed(digits).replace(/^-0\.?0*$/, (zero) => zero.slice(1)).replace("-", "−");
}

function below(j) {                     // latents are counted from 1: z₁, z₂, ...
  return String(j + 1).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]);
}

// The latents, the most active one first.
function byKL(model) {
  return [...model.kl.keys()].sort((a, b) => model.kl[b] - model.kl[a]);
}

function setLanguage(chosen) {
  language = chosen;
  document.documentElement.lang = chosen;
  document.title = say("title");
  for (const element of all("[data-text]")) element.textContent = say(element.dataset.text);
  for (const element of all("[data-label]")) element.setAttribute("aria-label", say(element.dataset.label));
  for (const button of all("[data-language]")) button.setAttribute("aria-pressed", button.dataset.language === chosen);
  for (const [view, model] of Object.entries(models)) {
    const tab = $(`tab-${view}`), count = document.createElement("small");
    count.textContent = say(model.latent === 1 ? "latentOne" : "latents", { J: model.latent });
    tab.replaceChildren(`${say(`tab-${view}`)} `, count);
    for (const row of all(`#sliders-of-${view} [data-latent]`)) {
      const j = Number(row.dataset.latent);
      const label = say("sliderLabel", { j: below(j), kl: model.kl[j].toFixed(2) });
      row.querySelector("input").setAttribute("aria-label", label);
    }
  }
  for (const button of all("#label-buttons button")) {
    button.querySelector("canvas").setAttribute("aria-label", say("labelButton", { label: button.dataset.value }));
  }
  const files = Object.values(models).map((model) => model.file).join(", ");
  $("source").textContent = say("source", { files, data: DATA_NAMES[data.data] });
  redraw();
}

// What a screen reader hears of a point that was moved, once it rests.
let resting;
function speakSoon() {
  clearTimeout(resting);
  resting = setTimeout(() => { $("spoken").textContent = state.view === "map" ? zText() : ""; }, 600);
}

function zText() {
  return [...state.z.map].map((value, j) => `z${below(j)} = ${number(value)}`).join("\n");
}

// ---- drawing ---------------------------------------------------------------------------------------------------------

let waiting = false;
function redraw() {                     // at most once for each frame of the screen, however many events came
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function draw() {
  const { view } = state, model = models[view];
  drawPicture($("decoded-picture"), decodeMean(model, state.z[view], state.y));
  if (view === "map") drawMap();
  else drawSliders(view);
  if (view === "labels") drawLabels();
  drawImage();
  speakSoon();
}

// An image (D), one canvas pixel for each; the style sheet enlarges them. null: black.
function drawPicture(canvas, image) {
  const [height, width] = data.imageShape;
  Object.assign(canvas, { width, height });
  if (image) canvas.getContext("2d").putImageData(pixelsOf(image), 0, 0);
}

function pixelsOf(image) {
  const [height, width] = data.imageShape, pixels = new ImageData(width, height);
  image.forEach((value, i) => pixels.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
  return pixels;
}

// A canvas as many pixels large as the screen has for it; the context counts in CSS pixels.
function sharp(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
}

function labelColor(label) {
  if (label === undefined) return TAB10[0];
  const place = data.classes.indexOf(label), count = data.classes.length;
  return count <= TAB10.length ? TAB10[place] : `hsl(${Math.round(360 * place / count)} 65% 50%)`;
}

// z -> pixels of the map: z1 to the right, z2 upward, both from -limit to limit.
function toMap(z, size) {
  const { limit } = models.map;
  return [(z[0] / limit + 1) / 2 * size, (1 - z[1] / limit) / 2 * size];
}

function fromMap(x, y, size) {
  const { limit } = models.map, within = (value) => Math.max(-limit, Math.min(limit, value));
  return Float64Array.of(within((2 * x / size - 1) * limit), within((1 - 2 * y / size) * limit));
}

// What lies under the point: manifold, lines, dots. Drawn anew only where it has changed.
const ground = { canvas: document.createElement("canvas"), key: "" };
function drawGround(size) {
  const key = [size, devicePixelRatio, dark.matches, $("show-means").checked, $("show-manifold").checked].join();
  if (key === ground.key) return;
  ground.key = key;
  const context = sharp(ground.canvas, size, size), { limit } = models.map;
  context.fillStyle = color("card");
  context.fillRect(0, 0, size, size);
  if ($("show-manifold").checked) {
    context.imageSmoothingEnabled = manifold().width * 2 > size;        // smaller images would look blurred
    context.drawImage(manifold(), 0, 0, size, size);
  }
  context.strokeStyle = color("line");
  context.globalAlpha = $("show-manifold").checked ? 0.35 : 1;
  for (let value = Math.ceil(-limit); value <= limit; value++) {
    const [x, y] = toMap([value, value], size);
    context.lineWidth = value ? 1 : 2;
    context.beginPath();
    for (const [a, b, c, d] of [[x, 0, x, size], [0, y, size, y]]) { context.moveTo(a, b); context.lineTo(c, d); }
    context.stroke();
  }
  context.globalAlpha = 1;
  if ($("show-means").checked) drawDots(context, (z) => toMap(z, size), size < 400 ? 1.6 : 2.4);
  context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "bottom";
  for (let value = Math.ceil(-limit) + 1; value < limit; value++) {
    const [x, y] = toMap([value, value], size), text = String(value).replace("-", "−");
    context.textAlign = "center";
    if (x < size - 40) write(context, text, x, size - 3);               // beyond it stand the names of the axes
    context.textAlign = "left";
    if (y > 30) write(context, text, 4, y + 7);
  }
  context.textAlign = "right";
  write(context, "z₁ →", size - 4, size - 3);
  context.textAlign = "left";
  write(context, "↑ z₂", 4, 18);
}

// Text that is legible on anything.
function write(context, text, x, y) {
  Object.assign(context, { strokeStyle: color("card"), fillStyle: color("ink"), lineWidth: 4, lineJoin: "round" });
  context.strokeText(text, x, y);
  context.fillText(text, x, y);
}

// The decoded plane: one image for each cell, at the z of its middle.
let tiles;
function manifold() {
  if (tiles) return tiles;
  const [height, width] = data.imageShape, { limit } = models.map, columns = Math.round(TILES * height / width);
  tiles = document.createElement("canvas");
  Object.assign(tiles, { width: columns * width, height: TILES * height });
  const context = tiles.getContext("2d");
  for (let row = 0; row < TILES; row++) {
    for (let column = 0; column < columns; column++) {
      const z = [((2 * column + 1) / columns - 1) * limit, (1 - (2 * row + 1) / TILES) * limit];
      context.putImageData(pixelsOf(decodeMean(models.map, z)), column * width, row * height);
    }
  }
  return tiles;
}

function drawMap() {
  const canvas = $("map"), size = canvas.clientWidth, { walk } = state, unit = size / (2 * models.map.limit);
  if (!size) return;                                                  // a window, or a frame, that is folded away
  drawGround(size);
  const context = sharp(canvas, size, size);
  context.drawImage(ground.canvas, 0, 0, size, size);
  if (walk.from && walk.to) {
    line(context, () => { context.moveTo(...toMap(walk.from, size)); context.lineTo(...toMap(walk.to, size)); });
  }
  for (const [name, z] of [["A", walk.from], ["B", walk.to]]) {
    if (!z) continue;
    context.font = `bold 16px ${getComputedStyle(document.body).fontFamily}`;
    Object.assign(context, { textAlign: "center", textBaseline: "bottom" });
    const [x, y] = toMap(z, size);
    line(context, () => context.arc(x, y, 3, 0, 2 * Math.PI));
    write(context, name, x, y - 6);
  }
  if (state.posterior.map) drawEllipses(context, toMap(state.posterior.map.mu, size), unit);
  line(context, () => context.arc(...toMap(state.z.map, size), 9, 0, 2 * Math.PI), "accent", 3);
  if (state.posterior.map) drawLens(context, size, unit);
  $("z").textContent = zText();
  drawWalk();
}

// A line with a rim, to be seen on any ground.
function line(context, trace, name = "ink", width = 2) {
  for (const [lineWidth, strokeStyle] of [[width + 3, color("card")], [width, color(name)]]) {
    Object.assign(context, { lineWidth, strokeStyle });
    context.beginPath();
    trace();
    context.stroke();
  }
}

// Where z is likely, given x: q(z|x) at 1 and 2 sigma around mu. `unit` pixels are 1 in z.
function drawEllipses(context, [x, y], unit) {
  const sigma = sigmaOf(state.posterior.map.logvar);
  for (const k of [1, 2]) {
    line(context, () => context.ellipse(x, y, k * sigma[0] * unit, k * sigma[1] * unit, 0, 0, 2 * Math.PI));
  }
}

// Ellipses too small to see: a lens in a corner shows them, the dots around and the point so many times larger.
function drawLens(context, size, unit) {
  const { mu, logvar } = state.posterior.map, side = Math.min(LENS, size / 3), half = side / 2;
  const zoom = Math.floor(side / 3 / (2 * Math.max(...sigmaOf(logvar)) * unit));           // 2 sigma: a third of a side
  if (zoom < 2) return;
  const [x, y] = toMap(mu, size), left = x > size / 2 && y < size / 2 ? 0 : size - side;
  const middle = [left + half, half];
  const place = (z) => [middle[0] + (z[0] - mu[0]) * unit * zoom, half - (z[1] - mu[1]) * unit * zoom];
  context.save();
  context.beginPath();
  context.rect(left, 0, side, side);
  context.clip();
  context.fillStyle = color("card");
  context.fillRect(left, 0, side, side);
  if ($("show-means").checked) drawDots(context, place, 3.5);
  drawEllipses(context, middle, unit * zoom);
  line(context, () => context.arc(...place(state.z.map), 9, 0, 2 * Math.PI), "accent", 3);
  context.restore();
  Object.assign(context, { lineWidth: 1, strokeStyle: color("quiet"), textAlign: "left", textBaseline: "bottom" });
  context.strokeRect(left + 0.5, 0.5, side - 1, side - 1);
  context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  write(context, `1σ, 2σ  × ${zoom}`, left + 6, side - 4);
}

function drawDots(context, place, radius) {
  context.globalAlpha = 0.75;
  models.map.means.forEach((z, i) => {
    context.fillStyle = labelColor(data.dotLabels?.[i]);
    context.beginPath();
    context.arc(...place(z), radius, 0, 2 * Math.PI);
    context.fill();
  });
  context.globalAlpha = 1;
}

function drawWalk() {
  const { walk } = state, ready = Boolean(walk.from && walk.to);
  const text = say(["walkReady", "walkFirst", "walkSecond"][walk.choosing]);
  $("walk-text").textContent = ready || walk.choosing ? text : say("walkNone");
  $("choose").setAttribute("aria-pressed", walk.choosing > 0);
  $("play").textContent = say(walk.playing ? "pause" : "play");
  $("play").disabled = $("along").disabled = !ready;
  $("along").value = walk.t;
  $("strip").hidden = !ready;
  if (!ready) return;
  const [height, width] = data.imageShape;
  Object.assign($("strip"), { width: STRIP * (width + 1) - 1, height });
  for (let i = 0; i < STRIP; i++) {
    const image = decodeMean(models.map, between(walk, i / (STRIP - 1)));
    $("strip").getContext("2d").putImageData(pixelsOf(image), i * (width + 1), 0);
  }
}

function drawSliders(view) {
  const model = models[view], posterior = state.posterior[view], sigma = posterior && sigmaOf(posterior.logvar);
  for (const row of all(`#sliders-of-${view} [data-latent]`)) {
    const j = Number(row.dataset.latent), band = row.querySelector(".band");
    row.querySelector("input").value = state.z[view][j];
    row.querySelector("output").textContent = number(state.z[view][j]);
    band.hidden = !posterior;
    if (!posterior) continue;
    const [low, high] = [-2, 2].map((k) => {                          // mu - 2 sigma, mu + 2 sigma, on the track
      const share = ((posterior.mu[j] + k * sigma[j]) / model.limit + 1) / 2;
      return Math.max(0, Math.min(1, share));
    });
    band.style.left = `calc(8px + ${low} * (100% - 16px))`;           // 8px: half a thumb
    band.style.width = `calc(${high - low} * (100% - 16px))`;
  }
}

function drawLabels() {
  for (const button of all("#label-buttons button")) {
    const label = Number(button.dataset.value);
    drawPicture(button.querySelector("canvas"), decodeMean(models.labels, state.z.labels, label));
    button.setAttribute("aria-pressed", label === state.y);
  }
}

function drawImage() {
  const { view, x } = state, model = models[view], posterior = state.posterior[view];
  drawPad();
  drawPicture($("input-picture"), x);
  drawPicture($("reconstruction-picture"), x && decodeMean(model, posterior.mu, state.told));
  $("image-text").textContent = imageText();
  $("clear").disabled = $("posterior-draw").disabled = !x;
  $("told-label").value = state.told;
  $("posterior").hidden = !x;
  if (!x) return;
  const shown = view === "map" ? [0, 1] : byKL(model).slice(0, 5), sigma = sigmaOf(posterior.logvar);
  const caption = shown.length < model.latent ? "posteriorSome" : "posterior";
  $("posterior").caption.textContent = say(caption, { count: shown.length });
  $("posterior").tBodies[0].replaceChildren(...shown.map((j) => {
    const row = document.createElement("tr"), name = document.createElement("th");
    name.scope = "row";
    name.textContent = `z${below(j)}`;
    row.append(name);
    for (const value of [posterior.mu[j], sigma[j]]) row.insertCell().textContent = number(value, 3);
    return row;
  }));
}

function imageText() {
  if (!state.x) return say(DIGITS.includes(data.data) ? "imageNone" : "imageNoneOther");
  if (state.strokes.length) {
    const bernoulli = data.likelihood === "bernoulli";
    const drawn = say("imageDrawn", { data: DATA_NAMES[data.data], cut: say(bernoulli ? "cut" : "gray") });
    return state.view === "labels" && state.told === state.guess ? `${drawn} ${say("guess")}` : drawn;
  }
  return state.xLabel === null ? say("imageTestPlain") : say("imageTest", { label: state.xLabel });
}

function drawPad() {
  const width = $("pad").clientWidth, height = $("pad").clientHeight, context = sharp($("pad"), width, height);
  Object.assign(context, { strokeStyle: "#fff", lineWidth: 0.09 * width, lineCap: "round", lineJoin: "round" });
  for (const points of state.strokes) {
    context.beginPath();
    for (const [x, y] of [points[0], ...points]) context.lineTo(x * width, y * width);
    context.stroke();
  }
}

// ---- the beginning ---------------------------------------------------------------------------------------------------

function load() {
  data = JSON.parse($("data").textContent);
  models = data.models;
  for (const model of Object.values(models)) {
    for (const name in model.params) model.params[name] = weightsOf(model.params[name]);
  }
  if (models.map) {
    const numbers = Float64Array.from(uint16Of(models.map.means), (value) => (value / 32767.5 - 1) * models.map.limit);
    models.map.means = Array.from({ length: numbers.length / 2 }, (_, i) => numbers.subarray(2 * i, 2 * i + 2));
  }
  data.classes = [...new Set(data.dotLabels ?? [])].sort((a, b) => a - b);
  data.testImages = unpack(data.images, data.imageCount);
}

// Test images, eight black or white pixels a byte, or one gray one.
function unpack(base64, count) {
  const bytes = bytesOf(base64), length = bytes.length / count, [height, width] = data.imageShape;
  const binary = data.likelihood === "bernoulli";
  return Array.from({ length: count }, (_, n) => Float64Array.from({ length: height * width }, (_, i) =>
    binary ? (bytes[n * length + (i >> 3)] >> (7 - i % 8)) & 1 : bytes[n * length + i] / 255));
}

function buildSliders(view) {
  const model = models[view], head = document.createElement("div");
  head.className = "slider small";
  head.innerHTML = '<span></span><span></span><span>z</span><span data-text="kl"></span>';
  const rows = byKL(model).map((j) => {
    const row = document.createElement("div");
    row.className = "slider";
    row.dataset.latent = j;
    row.innerHTML = `<span>z${below(j)}</span><div class="track"><input type="range" min="${-model.limit}" ` +
      `max="${model.limit}" step="0.01"><div class="band"></div></div><output></output>` +
      `<span class="small">${model.kl[j].toFixed(2)}</span>`;
    row.querySelector("input").addEventListener("input", (event) => {
      const z = Float64Array.from(state.z[view]);
      z[j] = Number(event.target.value);
      setZ(view, z);
    });
    return row;
  });
  $(`sliders-of-${view}`).append(head, ...rows);
}

function buildLabels() {
  for (let label = 0; label < models.labels.condition; label++) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.value = label;
    button.innerHTML = `<canvas class="picture" role="img"></canvas><span>${label}</span>`;
    button.addEventListener("click", () => { state.y = label; redraw(); });
    $("label-buttons").append(button);
    $("told-label").append(new Option(label, label));
  }
  $("told-label").addEventListener("change", (event) => {
    state.told = Number(event.target.value);
    setPosterior("labels");
  });
}

// Calls down with the place where a pointer is pressed, as shares of the element's width, and move with the places that it
// has passed since.
function onDrag(element, down, move) {
  const place = (event) => {
    const { left, top, width } = element.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / width];
  };
  element.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button) return;
    element.setPointerCapture(event.pointerId);
    down(place(event));
  });
  element.addEventListener("pointermove", (event) => {
    if (!event.isPrimary || !element.hasPointerCapture(event.pointerId)) return;
    const places = event.getCoalescedEvents?.() ?? [];                   // a pen moves faster than the screen
    move((places.length ? places : [event]).map(place));
  });
}

function buildMap() {
  for (const label of data.classes) {
    const item = document.createElement("li");
    item.textContent = label;
    item.style.setProperty("--color", labelColor(label));
    $("legend").append(item);
  }
  $("legend").hidden = !data.classes.length;
  const move = (places) => setZ("map", fromMap(...places.at(-1), 1));
  onDrag($("map"), (place) => {
    pause();
    move([place]);
    if (state.walk.choosing) choosePoint();
  }, move);
  $("map").addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (event.key === "Enter" && state.walk.choosing) choosePoint();
    if (!direction) return;
    event.preventDefault();                                           // the page stays where it is
    pause();
    const step = event.shiftKey ? LONG_STEP : STEP, { limit } = models.map;
    setZ("map", state.z.map.map((value, j) => Math.max(-limit, Math.min(limit, value + step * direction[j]))));
  });
  for (const id of ["show-means", "show-manifold"]) $(id).addEventListener("change", redraw);
  $("choose").addEventListener("click", () => {
    pause();
    Object.assign(state.walk, { choosing: state.walk.choosing ? 0 : 1, from: null, to: null, t: 0 });
  });
  $("play").addEventListener("click", () => (state.walk.playing ? pause() : play()));
  $("along").addEventListener("input", (event) => { pause(); setAlong(Number(event.target.value)); });
}

function buildPad() {
  $("pad").style.aspectRatio = `${data.imageShape[1]} / ${data.imageShape[0]}`;
  onDrag($("pad"), (place) => { state.strokes.push([place]); setDrawing(); },
    (places) => { state.strokes.at(-1).push(...places); setDrawing(); });
}

function start() {
  load();
  for (const view of ["map", "sliders", "labels"]) {
    if (models[view]) continue;
    $(`tab-${view}`).remove();
    $(`view-${view}`).remove();
  }
  for (const view in models) {
    state.z[view] = new Float64Array(models[view].latent);
    $(`tab-${view}`).addEventListener("click", () => setView(view));
    if (view !== "map") buildSliders(view);
  }
  $("tabs").addEventListener("keydown", (event) => {
    const views = Object.keys(models), step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    setView(views[(views.indexOf(state.view) + step + views.length) % views.length]);
    $(`tab-${state.view}`).focus();
  });
  if (models.map) buildMap();
  if (models.labels) buildLabels();
  buildPad();
  for (const button of all("[data-prior]")) button.addEventListener("click", () => drawFromPrior(button.dataset.prior));
  for (const button of all("[data-reset]")) {
    const view = button.dataset.reset;
    button.addEventListener("click", () => setZ(view, new Float64Array(models[view].latent)));
  }
  for (const button of all("[data-language]")) button.addEventListener("click", () => setLanguage(button.dataset.language));
  $("clear").addEventListener("click", clear);
  $("test-image").addEventListener("click", takeTestImage);
  $("posterior-draw").addEventListener("click", drawFromPosterior);
  addEventListener("resize", redraw);
  dark.addEventListener("change", redraw);
  setView(Object.keys(models)[0]);
  setLanguage(navigator.language.startsWith("ko") ? "ko" : "en");
  // for the console, and for the tests: explorer.decode("map", [0, 1])
  window.explorer = {
    state, data, imageOf,
    encode: (view, x, y) => encode(models[view], x, y),
    decode: (view, z, y) => decode(models[view], z, y),
    decodeMean: (view, z, y) => decodeMean(models[view], z, y),
  };
}

document.addEventListener("DOMContentLoaded", start);
