// The page: parameters in the address, controls for them, and what is drawn and told of each panel.
"use strict";

const explorer = (() => {
  // `low`, `high`: ends of the slider, exponents of ten where `powers`; `least`, `most`: what is taken at all; `open`: not the ends.
  const PARAMETERS = {
    sigma: { label: "σ, the target", value: 0.4, low: -3, high: 3 },
    u0: { label: "u₀, first weight at the start", value: 0.5, low: -2, high: 2 },
    v0: { label: "v₀, second weight at the start", value: 0.1, low: -2, high: 2 },
    lambda0: { label: "λ₀, the imbalance", value: 1.5, low: -4, high: 4 },
    t: { label: "t, the time of the numbers", value: 2, low: -3, high: 3, powers: true, least: 0 },
    s0: { label: "s₀, strength at the start", value: 0.01, low: -8, high: 1, powers: true, least: 0 },
    depth: { label: "L, the depth", value: 4, low: 1, high: 12, least: 1, most: 1000, whole: true },
    alpha: { label: "α, exponent of the start", value: 0.5, low: 0.05, high: 1 },
    h: { label: "h, the width", value: 1000, low: 0, high: 12, powers: true, least: 0, open: true },
    n: { label: "n, inputs", value: 14, least: 1, most: 1e15, whole: true },
    r: { label: "r, rank of the data", value: 5, least: 1, most: 1e15, whole: true },
    m: { label: "m, outputs", value: 2, least: 1, most: 1e15, whole: true },
    kappa: { label: "κ, condition number of XᵀX", value: 2, least: 1, most: 1e150 },
    delta: { label: "δ, probability of failure", value: 0.1, least: 0, most: 1, open: true },
  };
  const POINTS = 300;
  const state = {};
  const wrong = {};
  const tables = {};

  function complaint(name, value) {
    const { least = -1e150, most = 1e300, whole, open } = PARAMETERS[name];
    const inside = open ? value > least && value < most : value >= least && value <= most;
    if (Number.isFinite(value) && inside && !(whole && !Number.isInteger(value))) return "";
    const kind = whole ? "a whole number" : "a number";
    const from = open ? `above ${least}` : PARAMETERS[name].least === undefined ? "" : `of at least ${least}`;
    const to = PARAMETERS[name].most === undefined ? "" : open ? ` and below ${most}` : ` and at most ${most}`;
    return `${PARAMETERS[name].label}: must be ${kind} ${from}${to}.`.replace(" .", ".");
  }

  function set(name, text) {
    const value = text === "" ? NaN : Number(text);
    const problem = complaint(name, value);
    if (problem) wrong[name] = problem;
    else {
      delete wrong[name];
      state[name] = value;
    }
  }

  // Of the address; what is not there has its default.
  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const [name, { value }] of Object.entries(PARAMETERS)) {
      state[name] = value;
      delete wrong[name];
      if (given.has(name)) set(name, given.get(name));
    }
    state.log = given.get("log") === "1";
    state.theme = ["dark", "light"].includes(given.get("theme")) ? given.get("theme") : "";
  }

  function write() {
    const changed = Object.entries(PARAMETERS).filter(([name, { value }]) => state[name] !== value);
    const parts = changed.map(([name]) => `${name}=${state[name]}`);
    if (state.log) parts.push("log=1");
    if (state.theme) parts.push(`theme=${state.theme}`);
    history.replaceState(null, "", parts.length ? `#${parts.join("&")}` : location.pathname + location.search);
  }

  // -- curves and numbers --------------------------------------------------------------------------------------------------

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

  const panels = {
    mode({ sigma, u0, v0, t }) {
      const x0 = u0 * v0;
      const at = laws.mode(sigma, u0, v0, t);
      const { rate, applies } = laws.acceleration(sigma, u0, v0);
      const [half, linearHalf] = [laws.modeTime(sigma, u0, v0, 0.5), laws.linearTime(sigma, x0, 0.5)];
      const ts = times(horizon(laws.modeTime(sigma, u0, v0, 0.01), laws.linearTime(sigma, x0, 0.01)));
      const numbers = { ...at, linear: laws.linear(sigma, x0, t), half, linearHalf, lambda: (u0 - v0) * (u0 + v0), rate, applies };
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
      return { numbers, rows, charts: [{ title: "Weights and product over time", x: clock(), y: { label: "value" }, curves, marks: now() }] };
    },

    imbalance({ sigma, u0, v0, lambda0, t }) {
      const x0 = u0 * v0;
      const [a, b] = laws.weights(x0, lambda0);
      const balanced = laws.weights(x0, 0);
      const { rate, applies, faster, least } = laws.acceleration(sigma, a, b);
      const half = laws.modeTime(sigma, a, b, 0.5);
      const at = laws.mode(sigma, a, b, t);
      const ends = [laws.modeTime(sigma, a, b, 0.01), laws.modeTime(sigma, ...balanced, 0.01), laws.linearTime(sigma, x0, 0.01)];
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
      const marks = [{ at: lambda0, text: "λ₀" }, ...(least > 0 ? [-least, least].map((level) => ({ at: level, text: "" })) : [])];
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
        { title: "Rate and time to half over the imbalance", x: { label: "imbalance λ₀", symbol: "λ₀" }, y: { label: "rate, time", powers: true }, curves: across, marks },
      ];
      return { numbers: { u0: a, v0: b, ...at, half, rate, applies, faster, least }, rows, charts };
    },

    deep({ sigma, s0, depth, t }) {
      const strength = laws.deep(sigma, s0, t, depth);
      const to = (share, L) => (sigma > 0 && s0 > 0 ? laws.deepTime(sigma, s0, s0 + share * (sigma - s0), L) : L === 1 ? laws.linearTime(sigma, s0, 1 - share) : NaN);
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
      return { numbers, rows, charts: [{ title: "Strength over time", x: clock(), y: { label: "strength s" }, curves, marks: now() }] };
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
      const power = (log) => (Math.abs(log) < 600 ? chart.written(Math.exp(log)) : `10^${(log / Math.LN10).toPrecision(6)}`);
      const rows = [
        ["", "at this width"],
        ["sharp law", at.wideEnough ? at.rms : `${chart.written(at.rms)} (for h ≥ r + m)`],
        ["Theorem 12", Number.isFinite(at.logBound) ? power(at.logBound) : "∞"],
        ["its hypothesis", at.applies ? "met" : "not met"],
        ["it speaks from h =", speaks ? power(at.logWidth) : "never at this α"],
      ];
      const x = { label: "width h", symbol: "h", powers: true };
      const y = { label: "distance", powers: true, range: [low - 0.5, top] };
      const charts = [{ title: "Distance from the minimum-norm solution over width", x, y, curves, marks: [{ at: Math.log10(given.h), text: "h" }] }];
      return { numbers: at, rows, charts };
    },
  };

  // -- the page ------------------------------------------------------------------------------------------------------------

  function make(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  function control(panel, name) {
    const { label, low, high, powers, whole } = PARAMETERS[name];
    const id = `${panel}-${name}`;
    const field = make("input", { type: "number", id, step: "any", "data-name": name });
    field.addEventListener("input", () => change(name, field.value, field));
    const box = make("div", { class: low === undefined ? "control single" : "control" }, make("label", { for: id }, label));
    if (low !== undefined) {
      const step = whole ? 1 : powers ? 0.01 : (high - low) / 600;
      const slider = make("input", { type: "range", min: low, max: high, step, "data-slider": name, "aria-label": label });
      slider.addEventListener("input", () => {
        const value = Number(slider.value);
        change(name, Number((powers ? 10 ** value : value).toPrecision(4)), slider);
      });
      box.append(slider);
    }
    box.append(field);
    return box;
  }

  function change(name, value, source) {
    set(name, value);
    write();
    show(source);
  }

  function build() {
    for (const section of document.querySelectorAll("section")) {
      const names = section.dataset.parameters.split(" ");
      const title = section.querySelector("h2").textContent;
      const controls = make("fieldset", {}, make("legend", {}, title), ...names.map((name) => control(section.id, name)));
      controls.append(make("p", { class: "wrong", role: "alert" }));
      const save = make("button", { type: "button", "aria-label": `Save the curves as CSV: ${title}` }, "Save the curves as CSV");
      save.addEventListener("click", () => download(section.id));
      const shown = make("div", { class: "shown" }, make("div", { class: "charts" }), make("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `Numbers: ${title}` }), save);
      section.append(controls, shown);
    }
    document.getElementById("log").addEventListener("change", (event) => {
      state.log = event.target.checked;
      write();
      show();
    });
    document.getElementById("theme").addEventListener("click", () => {
      state.theme = isDark() ? "light" : "dark";
      write();
      show();
    });
    document.getElementById("reset").addEventListener("click", () => {
      history.replaceState(null, "", location.pathname + location.search);
      read();
      show();
    });
    addEventListener("hashchange", () => {
      read();
      show();
    });
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth !== width) show();
      width = innerWidth;
    });
  }

  const isDark = () => (state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);

  // `source`: the control that is being moved, and is not written to.
  function show(source) {
    if (state.theme) document.documentElement.dataset.theme = state.theme;
    else delete document.documentElement.dataset.theme;
    document.getElementById("theme").setAttribute("aria-pressed", isDark());
    document.getElementById("log").checked = state.log;
    for (const field of document.querySelectorAll("[data-name]")) {
      const name = field.dataset.name;
      if (field !== source) field.value = state[name];
      field.setAttribute("aria-invalid", Boolean(wrong[name]) && field === source);
    }
    for (const slider of document.querySelectorAll("[data-slider]")) {
      const { low, high, powers } = PARAMETERS[slider.dataset.slider];
      const value = powers ? Math.log10(state[slider.dataset.slider]) : state[slider.dataset.slider];
      if (slider !== source) slider.value = Math.min(high, Math.max(low, value));
    }
    const numbers = { parameters: Object.fromEntries(Object.keys(PARAMETERS).map((name) => [name, state[name]])) };
    for (const section of document.querySelectorAll("section")) {
      const made = panels[section.id](state);
      const names = section.dataset.parameters.split(" ");
      const problems = [...names.map((name) => wrong[name]), made.problem].filter(Boolean);
      section.querySelector(".wrong").textContent = problems.join(" ");
      tables[section.id] = made.charts ?? [];
      section.querySelector("button").disabled = Boolean(made.problem);
      if (made.problem) continue;
      numbers[section.id] = made.numbers;
      const host = section.querySelector(".charts");
      while (host.children.length < made.charts.length) host.append(make("div"));
      made.charts.forEach((each, i) => chart.draw(host.children[i], each));
      section.querySelector(".scroll").replaceChildren(table(made.rows));
    }
    document.getElementById("numbers").textContent = JSON.stringify(numbers);
  }

  function table([head, ...rows]) {
    const cell = (value) => (typeof value === "number" ? (value === Infinity ? "never" : chart.written(value)) : value);
    const line = ([name, ...cells], tag) => make("tr", {}, make("th", { scope: tag === "th" ? "col" : "row" }, name), ...cells.map((each) => make(tag, {}, cell(each))));
    return make("table", {}, make("thead", {}, line(head, "th")), make("tbody", {}, ...rows.map((row) => line(row, "td"))));
  }

  // The curves of a panel, a column each, in all digits.
  function csv(panel) {
    const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
    const plain = (axis, value) => (Number.isFinite(value) ? String(axis.powers ? 10 ** value : value) : "");
    const parts = tables[panel].map(({ x, y, curves }) => {
      const head = [x.label, ...curves.map((curve) => curve.name)].map(quoted).join(",");
      const rows = curves[0].points.map(([at], i) => [plain(x, at), ...curves.map((curve) => plain(y, curve.points[i][1]))].join(","));
      return [head, ...rows].join("\n");
    });
    return `${parts.join("\n\n")}\n`;
  }

  function download(panel) {
    const link = make("a", { href: URL.createObjectURL(new Blob([csv(panel)], { type: "text/csv" })), download: `${panel}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  build();
  read();
  show();
  return { csv };
})();
