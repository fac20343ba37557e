// The VAE of this page: encoder q(z|x), noise, decoder p(x|z), and what makes an image x of a drawing. No library.
// The same names and equations as numpy/networks_numpy.py and numpy/vae_numpy.py, for one image at a time.
// Letters: D pixels, H hidden units, J latents, C labels.

// ---- weights ---------------------------------------------------------------------------------------------------------

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// Pairs of bytes, the low one first, as numbers from 0 to 65535.
function uint16Of(base64) {
  const bytes = bytesOf(base64), numbers = new Uint16Array(bytes.length / 2);
  for (let i = 0; i < numbers.length; i++) numbers[i] = bytes[2 * i] | (bytes[2 * i + 1] << 8);
  return numbers;
}

// A float16 has 1 bit of sign, 5 of exponent, 10 of fraction: (-1)^s * 2^(e - 15) * (1 + f / 1024), and for e = 0 without
// the 1. (e = 31 would be infinity or NaN: no such weight is in the page.)
function float16(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
}

function weightsOf(base64) {
  const halves = uint16Of(base64), weights = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) weights[i] = float16(halves[i]);
  return weights;
}

// ---- the two networks ------------------------------------------------------------------------------------------------

// W a + b. W has one row of inputs for each output, (out, in), row after row.
function linear(params, layer, a) {
  const W = params[`${layer}.weight`], b = params[`${layer}.bias`];
  return Float64Array.from(b, (sum, row) => {
    for (let i = 0, at = row * a.length; i < a.length; i++) sum += W[at + i] * a[i];
    return sum;
  });
}

function sigmoid(a) {
  return a.map((value) => 1 / (1 + Math.exp(-value)));
}

// a, and behind it the label y, one-hot. A model without labels (C = 0) takes a as it is.
function joinLabel(a, y, model) {
  const joined = new Float64Array(a.length + model.condition);
  joined.set(a);
  if (model.condition) joined[a.length + y] = 1;
  return joined;
}

// The parameters of q(z|x) = N(mu, sigma^2), the paper's appendix C.2:
//   h = tanh(W x + b),   mu = W_mu h + b_mu,   log sigma^2 = W_logvar h + b_logvar
function encode(model, x, y = 0) {
  const h = linear(model.params, "encoder.hidden", joinLabel(x, y, model)).map(Math.tanh);        // (H)
  return { mu: linear(model.params, "encoder.mu", h), logvar: linear(model.params, "encoder.logvar", h) };   // (J)
}

// sigma = exp(log sigma^2 / 2): the variance is exp(logvar), the standard deviation its root.
function sigmaOf(logvar) {
  return logvar.map((value) => Math.exp(0.5 * value));
}

// z = mu + sigma * eps, eps ~ N(0, I): a draw from q(z|x), equation 10. With mu = logvar = 0: a draw from the prior.
function reparameterize(mu, logvar, eps) {
  const sigma = sigmaOf(logvar);
  return mu.map((value, j) => value + sigma[j] * eps[j]);
}

// The logits of p(x|z), appendix C.1:   h = tanh(W z + b),   logits = W_x h + b_x
function decode(model, z, y = 0) {
  const h = linear(model.params, "decoder.hidden", joinLabel(z, y, model)).map(Math.tanh);        // (H)
  return linear(model.params, model.likelihood === "bernoulli" ? "decoder.logits" : "decoder.mean", h);      // (D)
}

// The mean of p(x|z), a picture to look at: for each pixel the probability of white, or for a Gaussian decoder its gray.
function decodeMean(model, z, y = 0) {
  return sigmoid(decode(model, z, y));
}

// The bound on log p(x|y) of a Bernoulli model, in nats, at z = mu:   log p(x|z, y) - KL(q(z|x, y) || N(0, I))
function boundAtMean(model, x, y) {
  const { mu, logvar } = encode(model, x, y), logits = decode(model, mu, y);
  const softplus = (a) => Math.max(a, 0) + Math.log1p(Math.exp(-Math.abs(a)));                   // log(1 + e^a)
  const logLikelihood = logits.reduce((sum, a, i) => sum + x[i] * a - softplus(a), 0);
  return logLikelihood - mu.reduce((sum, m, j) => sum + 0.5 * (m * m + Math.expm1(logvar[j]) - logvar[j]), 0);
}

// The label that a conditional model finds the likeliest for an image.
function guessLabel(model, x) {
  const bounds = Array.from({ length: model.condition }, (_, y) => boundAtMean(model, x, y));
  return bounds.indexOf(Math.max(...bounds));
}

// J numbers from N(0, 1), by Box and Muller: if u, v are uniform, sqrt(-2 log u) cos(2 pi v) is normal.
function normals(J) {
  return Float64Array.from({ length: J }, () =>
    Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()));
}

// ---- a drawing as an image -------------------------------------------------------------------------------------------

const STROKE = 0.125;             // width of a stroke as a share of the box: 2.5 pixels of MNIST's 20
const SMALLEST = 0.1;             // a drawing smaller than this share of the pad is not enlarged further: a dot stays a dot

// MNIST's recipe: the drawing is scaled so that its longer side fills the box (20 of the 28 pixels), then shifted so that
// its center of mass is the center of the image, though never beyond the edge. Strokes are lists of [x, y] on the pad,
// which is 1 x 1. Returns gray pixels in [0, 1], row by row.
function imageOf(strokes, [height, width], box) {
  const points = strokes.flat(), xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const stroke = STROKE * box;
  const scale = Math.min((Math.min(box, width) - stroke) / Math.max(right - left, SMALLEST),
                         (Math.min(box, height) - stroke) / Math.max(bottom - top, SMALLEST));
  const place = (dx, dy) => ink(strokes.map((points) => points.map(([x, y]) => [
    (x - (left + right) / 2) * scale + width / 2 + dx, (y - (top + bottom) / 2) * scale + height / 2 + dy])),
    height, width, stroke);

  const centered = place(0, 0);                                       // its box is in the middle: where is its mass?
  let mass = 0, massX = 0, massY = 0;
  centered.forEach((value, i) => {
    mass += value;
    massX += value * (i % width + 0.5);
    massY += value * (Math.floor(i / width) + 0.5);
  });
  const within = (shift, room) => Math.max(-room, Math.min(room, shift));
  return place(within(width / 2 - massX / mass, (width - stroke - (right - left) * scale) / 2),
               within(height / 2 - massY / mass, (height - stroke - (bottom - top) * scale) / 2));
}

// Strokes in pixels of the image -> gray pixels: 1 well inside a stroke, 0 well outside, and a ramp one pixel wide between.
function ink(strokes, height, width, stroke) {
  const image = new Float64Array(height * width);
  for (const points of strokes) {
    points.forEach((end, k) => {
      const start = points[Math.max(0, k - 1)];
      for (let i = 0; i < image.length; i++) {
        const away = distance(i % width + 0.5, Math.floor(i / width) + 0.5, start, end);
        image[i] = Math.max(image[i], Math.min(1, stroke / 2 + 0.5 - away));
      }
    });
  }
  return image;
}

// From the point (x, y) to the segment between two others.
function distance(x, y, [x0, y0], [x1, y1]) {
  const length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2;
  const along = length2 ? Math.max(0, Math.min(1, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length2)) : 0;
  return Math.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0));
}

// Black or white, cut at one half: a Bernoulli model has seen no gray.
function binarize(image) {
  return image.map((value) => (value > 0.5 ? 1 : 0));
}
