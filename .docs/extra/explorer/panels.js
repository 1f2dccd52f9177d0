// What each panel of the page draws and tells: curves over time or width, and numbers at one.
"use strict";

const panels = (state) => {
  const POINTS = 300;

  function times(end) {
    const at = (i) => (state.log ? end * 10 ** (-5 * (1 - i / (POINTS - 1))) : (end * i) / (POINTS - 1));
    return Array.from({ length: POINTS }, (_, i) => at(i));
  }

  // Until the slowest of some times, of those that ever come.
  function horizon(...ends) {
    const finite = ends.filter((end) => Number.isFinite(end) && end > 0);
    return finite.length ? Math.min(1.2 * Math.max(...finite), 1e12) : 10;
  }

  function over(ts, name, look, value) {
    const point = (t) => [state.log ? Math.log10(t) : t, value(t)];
    return { name, look, points: ts.map(point) };
  }

  const clock = () => ({ label: "time t", symbol: "t", powers: state.log });
  const now = () => [{ at: state.log ? Math.log10(state.t) : state.t, text: "t" }];

  return {
    mode({ sigma, u0, v0, t }) {
      const x0 = u0 * v0;
      const at = laws.mode(sigma, u0, v0, t);
      const { rate, applies } = laws.acceleration(sigma, u0, v0);
      const [half, linearHalf] = [laws.modeTime(sigma, u0, v0, 0.5), laws.linearTime(sigma, x0, 0.5)];
      const ts = times(horizon(laws.modeTime(sigma, u0, v0, 0.01), laws.linearTime(sigma, x0, 0.01)));
      const numbers = {
        ...at,
        linear: laws.linear(sigma, x0, t),
        half,
        linearHalf,
        lambda: (u0 - v0) * (u0 + v0),
        rate,
        applies,
      };
      const curves = [
        over(ts, "x = uv, two layers", 0, (s) => laws.mode(sigma, u0, v0, s).x),
        over(ts, "x, one layer", 1, (s) => laws.linear(sigma, x0, s)),
        over(ts, "u", 2, (s) => laws.mode(sigma, u0, v0, s).u),
        over(ts, "v", 3, (s) => laws.mode(sigma, u0, v0, s).v),
      ];
      const rows = [
        ["", "two layers", "one layer"],
        ["x at t", at.x, numbers.linear],
        ["u, v at t", `${chart.written(at.u)}, ${chart.written(at.v)}`, ""],
        ["time to half of the way", half, linearHalf],
        ["rate in the end", applies ? rate : "none: it ends at 0, the saddle", 1],
      ];
      return {
        numbers,
        rows,
        charts: [{ title: "Weights and product over time", x: clock(), y: { label: "value" }, curves, marks: now() }],
      };
    },

    imbalance({ sigma, u0, v0, lambda0, t }) {
      const x0 = u0 * v0;
      const [a, b] = laws.weights(x0, lambda0);
      const balanced = laws.weights(x0, 0);
      const { rate, applies, faster, least } = laws.acceleration(sigma, a, b);
      const half = laws.modeTime(sigma, a, b, 0.5);
      const at = laws.mode(sigma, a, b, t);
      const ends = [
        laws.modeTime(sigma, a, b, 0.01),
        laws.modeTime(sigma, ...balanced, 0.01),
        laws.linearTime(sigma, x0, 0.01),
      ];
      const ts = times(horizon(...ends));
      const size = Math.max(4, 1.2 * Math.abs(lambda0));
      const levels = Array.from({ length: POINTS + 1 }, (_, i) => size * ((2 * i) / POINTS - 1));
      const log10 = (value) => Math.log10(value);
      const across = [
        ["rate, two layers", (level) => laws.acceleration(sigma, ...laws.weights(x0, level)).rate],
        ["rate, one layer", () => 1],
        ["time to half, two layers", (level) => laws.modeTime(sigma, ...laws.weights(x0, level), 0.5)],
        ["time to half, one layer", () => laws.linearTime(sigma, x0, 0.5)],
      ].map(([name, value], look) => ({ name, look, points: levels.map((level) => [level, log10(value(level))]) }));
      const curves = [
        over(ts, "two layers at λ₀", 0, (s) => laws.mode(sigma, a, b, s).x),
        over(ts, "one layer", 1, (s) => laws.linear(sigma, x0, s)),
        over(ts, "two balanced layers", 2, (s) => laws.mode(sigma, ...balanced, s).x),
      ];
      const marks = [
        { at: lambda0, text: "λ₀" },
        ...(least > 0 ? [-least, least].map((level) => ({ at: level, text: "" })) : []),
      ];
      const rows = [
        ["", "two layers", "one layer"],
        ["u₀, v₀ of this start", `${chart.written(a)}, ${chart.written(b)}`, ""],
        ["x at t", at.x, laws.linear(sigma, x0, t)],
        ["time to half of the way", half, laws.linearTime(sigma, x0, 0.5)],
        ["rate in the end", applies ? rate : "none: it ends at 0, the saddle", 1],
        ["|λ₀| that it takes to be faster", least, ""],
      ];
      const charts = [
        { title: "The product over time", x: clock(), y: { label: "x" }, curves, marks: now() },
        {
          title: "Rate and time to half over the imbalance",
          x: { label: "imbalance λ₀", symbol: "λ₀" },
          y: { label: "rate, time", powers: true },
          curves: across,
          marks,
        },
      ];
      return { numbers: { u0: a, v0: b, ...at, half, rate, applies, faster, least }, rows, charts };
    },

    deep({ sigma, s0, depth, t }) {
      const strength = laws.deep(sigma, s0, t, depth);
      const to = (share, L) =>
        sigma > 0 && s0 > 0
          ? laws.deepTime(sigma, s0, s0 + share * (sigma - s0), L)
          : L === 1
            ? laws.linearTime(sigma, s0, 1 - share)
            : NaN;
      const depths = [...new Set([depth, 1, 2])];
      const ts = times(horizon(...depths.map((L) => to(0.99, L))));
      const word = (L) => (L === 1 ? "1 layer" : `${L} layers`);
      const curves = depths.map((L, look) => over(ts, word(L), look, (s) => laws.deep(sigma, s0, s, L)));
      const rate = sigma > 0 || depth === 1 ? depth * (depth === 1 ? 1 : sigma ** (2 - 2 / depth)) : NaN;
      const numbers = { s: strength, half: to(0.5, depth), rate };
      const rows = [
        ["", ...depths.map(word)],
        ["s at t", ...depths.map((L) => laws.deep(sigma, s0, t, L))],
        ["time to half of the way", ...depths.map((L) => to(0.5, L))],
      ];
      return {
        numbers,
        rows,
        charts: [{ title: "Strength over time", x: clock(), y: { label: "strength s" }, curves, marks: now() }],
      };
    },

    wide(given) {
      if (given.r > given.n) return { problem: `The rank r = ${given.r} must be at most n = ${given.n}.` };
      if (given.r === 1 && given.kappa !== 1) return { problem: "With r = 1 there is one eigenvalue: κ must be 1." };
      const at = laws.wide(given);
      const [first, last] = [Math.min(1, Math.log10(given.h)), Math.max(12, Math.log10(given.h))];
      const widths = Array.from({ length: POINTS }, (_, i) => first + ((last - first) * i) / (POINTS - 1));
      const laid = widths.map((power) => laws.wide({ ...given, h: 10 ** power }));
      const law = laid.map(({ rms }, i) => [widths[i], Math.log10(rms)]);
      const bound = (met) => laid.map((each, i) => [widths[i], each.applies === met ? each.logBound / Math.LN10 : NaN]);
      const seen = law.map(([, value]) => value).filter(Number.isFinite);
      const [low, high] = seen.length ? [Math.min(...seen), Math.max(...seen)] : [-1, 0];
      const bounds = laid.map(({ logBound }) => logBound / Math.LN10);
      const top = Math.max(high + 1, Math.min(high + 12, Math.max(...bounds)) + 0.3);
      const hidden = bounds.some((value) => !(value <= top)) ? ", partly above the picture" : "";
      const curves = [
        { name: "sharp law (root mean square)", look: 0, points: law },
        { name: "Theorem 12, its hypothesis met", look: 1, points: bound(true) },
        { name: `Theorem 12, its hypothesis not met${hidden}`, look: 2, points: bound(false) },
      ];
      const speaks = Number.isFinite(at.logWidth) && given.alpha <= 0.5;
      const power = (log) =>
        Math.abs(log) < 600 ? chart.written(Math.exp(log)) : `10^${(log / Math.LN10).toPrecision(6)}`;
      const rows = [
        ["", "at this width"],
        ["sharp law", at.wideEnough ? at.rms : `${chart.written(at.rms)} (for h ≥ r + m)`],
        ["Theorem 12", Number.isFinite(at.logBound) ? power(at.logBound) : "∞"],
        ["its hypothesis", at.applies ? "met" : "not met"],
        ["it speaks from h =", speaks ? power(at.logWidth) : "never at this α"],
      ];
      const x = { label: "width h", symbol: "h", powers: true };
      const y = { label: "distance", powers: true, range: [low - 0.5, top] };
      const charts = [
        {
          title: "Distance from the minimum-norm solution over width",
          x,
          y,
          curves,
          marks: [{ at: Math.log10(given.h), text: "h" }],
        },
      ];
      return { numbers: at, rows, charts };
    },
  };
};
