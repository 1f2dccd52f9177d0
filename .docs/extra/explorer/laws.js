// The closed forms of lindyn_jax for numbers of float64, in the same forms without overflow and cancellation: exact/mode.py,
// exact/linear.py, exact/deep.py, theory/acceleration.py, theory/distance.py and theory/concentration.py say why each is so.
"use strict";

const laws = (() => {
  const series = (step) => {
    const coefficients = [1];
    for (let j = 1; j < 9; j++) coefficients.push(coefficients[j - 1] / ((2 * j + step - 1) * (2 * j + step)));
    return coefficients;
  };
  const COSH = series(0);
  const SINHC = series(1);
  const polynomial = (coefficients, x) => coefficients.reduceRight((value, c) => value * x + c, 0);

  // One mode of two layers after the symmetries: sigma >= 0 and u0 >= |v0|.
  function canonical(sigma, u0, v0) {
    const sign = sigma < 0 ? -1 : 1;
    sigma *= sign;
    v0 *= sign;
    const swapped = Math.abs(v0) > Math.abs(u0);
    if (swapped) [u0, v0] = [v0, u0];
    const turn = u0 < 0 ? -1 : 1;
    u0 *= turn;
    v0 *= turn;
    const lambda = (u0 - v0) * (u0 + v0);
    const mu = Math.hypot(2 * sigma, lambda);
    const growth = sigma + (u0 * (u0 - v0) * (1 + (mu > 0 ? lambda / (mu + 2 * sigma) : 0))) / 2;
    const back = (u, v) => (swapped ? [turn * v, sign * turn * u] : [turn * u, sign * turn * v]);
    return { sigma, u0, v0, lambda, mu, growth, back };
  }

  // u' = (sigma - u v) v, v' = (sigma - u v) u.
  function mode(sigma, u0, v0, t) {
    const m = canonical(sigma, u0, v0);
    const [u, v] = m.back(...(m.mu * t > 1 ? far(m, t) : near(m, t)));
    return { u, v, x: u * v };
  }

  function near(m, t) {
    const z = (m.sigma * t) ** 2 + ((m.lambda * t) / 2) ** 2;
    const [cosh, sinhc] = [polynomial(COSH, z), t * polynomial(SINHC, z)];
    const half = m.lambda / 2;
    const moment = m.lambda * half + 2 * m.sigma * (m.u0 * m.v0);
    const norm = Math.sqrt(1 + sinhc * (cosh * (m.u0 * m.u0 + m.v0 * m.v0) + sinhc * moment));
    const u = cosh * m.u0 + sinhc * (half * m.u0 + m.sigma * m.v0);
    const v = cosh * m.v0 + sinhc * (m.sigma * m.u0 - half * m.v0);
    return [u / norm, v / norm];
  }

  function far(m, t) {
    const c = Math.sqrt((m.mu + m.lambda) / 2);
    const d = m.sigma / c;
    const x = (m.mu * t) / 2;
    const eta = Math.exp(-x);
    const s = -Math.expm1(-2 * x) / m.mu;
    const beta = (m.u0 + m.v0) * ((s * m.growth) / c);
    const decaying = beta <= eta;
    const larger = Math.max(beta, eta);
    const ratio = larger > 0 ? Math.min(beta, eta) / larger : 0;
    const [first, second] = decaying ? [eta, ratio] : [ratio * eta, 1];
    const rest = 1 + s * (m.u0 * m.u0 + m.v0 * m.v0);
    const norm = Math.sqrt(decaying ? rest + ratio * ratio : ratio * ratio * rest + 1);
    return [(first * m.u0 + second * c) / norm, (first * m.v0 + second * d) / norm];
  }

  // x' = sigma - x, one mode of one layer.
  const linear = (sigma, x0, t) => x0 * Math.exp(-t) - sigma * Math.expm1(-t);

  // When the distance from sigma is `share` of what it was: from the product's closed form, a quadratic equation in e^{mu t}.
  function modeTime(sigma, u0, v0, share) {
    const m = canonical(sigma, u0, v0);
    const x0 = m.u0 * m.v0;
    if (m.sigma === x0) return 0;
    const goal = 1 / share - 1;
    const rho = Math.hypot(2 * x0, m.lambda);
    if (m.mu < 1e-150) return goal / rho;
    const q = m.growth * (m.u0 + m.v0);
    const total = (4 * (q / m.mu) * (q / m.mu)) / (m.mu + m.lambda);
    if (total === 0) return Infinity;
    const a = rho / m.mu;
    const b = (m.lambda / m.mu) ** 2 + 4 * (m.sigma / m.mu) * (x0 / m.mu);
    const root = Math.sqrt(goal * goal + 2 * goal * b + a * a);
    const excess = a >= goal ? (2 * goal) / (root + (a - goal)) : (goal - a + root) / total;
    return Math.log1p(excess) / m.mu;
  }
  const linearTime = (sigma, x0, share) => (sigma === x0 ? 0 : -Math.log(share));

  // Rate of two layers, whether its hypothesis holds, whether it beats the 1 of one layer, and the imbalance it takes for that.
  function acceleration(sigma, u0, v0) {
    const m = canonical(sigma, u0, v0);
    const applies = m.u0 + m.v0 > 0 && m.mu > 0;
    const size = Math.abs(sigma);
    const least = size < 0.5 ? Math.sqrt((1 - 2 * size) * (1 + 2 * size)) : 0;
    return { rate: m.mu, applies, faster: m.mu > 1, least };
  }

  // Weights of product x0 and imbalance lambda.
  function weights(x0, lambda) {
    const large = Math.sqrt((Math.hypot(2 * x0, lambda) + Math.abs(lambda)) / 2);
    const small = lambda === 0 ? large : Math.abs(x0) / large;
    const sign = x0 < 0 ? -1 : 1;
    return lambda < 0 ? [small, sign * large] : [large, sign * small];
  }

  // s' = L s^{2 - 2/L} (sigma - s), one mode of a balanced network of L layers.
  function deep(sigma, s0, t, L) {
    if (L === 1) return linear(sigma, s0, t);
    if (!(s0 > 0)) return s0;
    const size = Math.abs(sigma);
    if (size < 1e-154) return s0 * Math.exp((-L / (2 * L - 2)) * Math.log1p(2 * (L - 1) * s0 ** (2 - 2 / L) * t));
    const p0 = s0 / size;
    const tau = size ** (2 - 2 / L) * t;
    if (p0 === 1 && sigma > 0) return sigma;
    const branch = sigma < 0 ? -1 : p0 > 1 ? 1 : 0;
    const faint = p0 < 1e-154;
    const logP0 = Math.log(s0) - Math.log(size);
    let z0;
    if (faint) z0 = branch < 0 ? -logP0 : logP0;
    else if (branch < 0) z0 = p0 < 1 ? Math.log1p(p0) - Math.log(p0) : Math.log1p(1 / p0);
    else z0 = coordinate(p0, branch > 0);
    const z = L === 2 ? z0 + 2 * tau : advance(z0, tau, branch, L);
    const logP = logarithm(z, branch);
    return faint ? Math.exp(Math.log(size) + logP) : Math.exp(logP) * size;
  }

  // The inverse: when a mode that starts at s0 has the strength s, for sigma > 0; NaN where it never has.
  function deepTime(sigma, s0, s, L) {
    const [p0, p] = [s0 / sigma, s / sigma];
    const reached = p0 < 1 ? p >= p0 && p < 1 : p <= p0 && p > 1;
    if (!(sigma > 0 && p0 > 0 && p > 0 && reached)) return NaN;
    if (L === 1) return Math.log((1 - p0) / (1 - p));
    const above = p0 > 1;
    const [z0, z] = [coordinate(p0, above), coordinate(p, above)];
    const branch = above ? 1 : 0;
    const tau = L === 2 ? (z - z0) / 2 : elapsed(z, branch, L) - elapsed(z0, branch, L);
    return tau / sigma ** (2 - 2 / L);
  }

  const coordinate = (p, above) => (above ? -Math.log1p(-1 / p) : Math.log(p) - Math.log1p(-p));

  // log p on the branches 0 (p < 1), 1 (p > 1) and -1 (target of the other sign, z = log(1 + 1/p)).
  function logarithm(z, branch) {
    if (branch === 0) return z > 0 ? -Math.log1p(Math.exp(-z)) : z - Math.log1p(Math.exp(z));
    const gap = z < 0.5 ? Math.log(-Math.expm1(-z)) : Math.log1p(-Math.exp(-z));
    return branch > 0 ? -gap : -z - gap;
  }

  // z at time tau from z0 under dz/dtau = L p^{1 - 2/L}: bisection, then Newton's method.
  function advance(z0, tau, branch, L) {
    const slope = (z) => L * Math.exp((1 - 2 / L) * logarithm(z, branch));
    const start = elapsed(z0, branch, L);
    const first = slope(z0);
    let low = z0 + tau * (branch === 0 ? first : branch > 0 ? L : 0);
    let high = z0 + tau * (branch === 0 ? L : first);
    const [least, most] = [low, high];
    for (let i = 0; i < 64; i++) {
      const middle = (low + high) / 2;
      if (elapsed(middle, branch, L) - start < tau) low = middle;
      else high = middle;
    }
    let z = (low + high) / 2;
    for (let i = 0; i < 2; i++) {
      const better = z + slope(z) * (tau - (elapsed(z, branch, L) - start));
      if (better >= least && better <= most && Math.abs(better - z) <= 1e-6 * Math.max(1, Math.abs(z))) z = better;
    }
    return z;
  }

  // The time tau at coordinate z, for L >= 3: since infinity on branches 1 and -1, up to a constant on branch 0.
  function elapsed(z, branch, L) {
    const logX = logarithm(z, branch) / L;
    if (branch !== 0 && L * logX > Math.LN2) {
      const inverse = Math.exp(-L * logX);
      const coefficients = Array.from({ length: 56 }, (_, j) => 1 / (2 * L - 2 + j * L));
      return polynomial(coefficients, branch < 0 ? -inverse : inverse) * inverse ** (2 - 2 / L);
    }
    const x = Math.exp(logX);
    const shift = branch < 0 ? 0.5 : 0;
    let part = 0;
    for (let k = 0; k < L; k++) {
      if (k + shift === 0) {
        // 1 - x from z, beyond the digits of x; log(1 - x) is -z - log L where p is 1 to within them.
        part += z > 30 ? -z - Math.log(L) : Math.log(Math.max(Math.abs(Math.expm1(logX)), 2.3e-308));
        continue;
      }
      const angle = (2 * Math.PI * (k + shift)) / L;
      const [real, imaginary] = [1 - Math.cos(angle) * x, -Math.sin(angle) * x];
      part += (Math.cos(2 * angle) * Math.log(real * real + imaginary * imaginary)) / 2;
      part += Math.sin(2 * angle) * Math.atan2(imaginary, real);
    }
    const power = Math.exp((2 - L) * logX) / (L - 2);
    if (branch < 0) return -part / L + power - Math.PI / L / Math.sin((2 * Math.PI) / L);
    return -part / L - power - (branch > 0 ? Math.PI / L / Math.tan((2 * Math.PI) / L) : 0);
  }

  // Distance of a wide network's limit from the minimum-norm solution, and M22's bound on it, in natural logarithms, for data of
  // rank r in n inputs whose X^T X has the eigenvalues kappa, 1, ..., 1, and m outputs with Theta_hat = sigma times the identity.
  function wide({ sigma, alpha, h, n, r, m, kappa, delta }) {
    const count = Math.min(r, m);
    const level = h ** (1 - 2 * alpha);
    const trace = count * Math.hypot(level, sigma) + (m - count) * level;
    const rms = Math.sqrt(n - r) * h ** -alpha * Math.sqrt(trace);
    const w = Math.sqrt(m + n) + 0.5 * Math.log(2 / delta);
    const logC = 1 + Math.sqrt(kappa) * Math.abs(sigma) * Math.sqrt(kappa + count - 1);
    const h0 = Math.max(16 * w * w, 4 * m * (kappa * w) ** 2);
    const logBound = Math.LN2 + logC / level + 0.5 * Math.log(m + r) + Math.log(w) + (0.5 - 2 * alpha) * Math.log(h);
    const logWidth = alpha > 0.25 ? Math.log(h0) / (4 * alpha - 1) : Infinity;
    const applies = Math.log(h) > logWidth && alpha <= 0.5 && Number.isFinite(logBound);
    return { rms, level, logBound, logC, w, h0, logWidth, applies, wideEnough: h >= r + m };
  }

  return { mode, linear, modeTime, linearTime, acceleration, weights, deep, deepTime, wide };
})();
