// The page: parameters in the address, and controls for them.
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
    const box = make(
      "div",
      { class: low === undefined ? "control single" : "control" },
      make("label", { for: id }, label),
    );
    if (low !== undefined) {
      const step = whole ? 1 : powers ? 0.01 : (high - low) / 600;
      const slider = make("input", {
        type: "range",
        min: low,
        max: high,
        step,
        "data-slider": name,
        "aria-label": label,
      });
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
      const controls = make(
        "fieldset",
        {},
        make("legend", {}, title),
        ...names.map((name) => control(section.id, name)),
      );
      controls.append(make("p", { class: "wrong", role: "alert" }));
      const save = make(
        "button",
        { type: "button", "aria-label": `Save the curves as CSV: ${title}` },
        "Save the curves as CSV",
      );
      save.addEventListener("click", () => download(section.id));
      const shown = make(
        "div",
        { class: "shown" },
        make("div", { class: "charts" }),
        make("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `Numbers: ${title}` }),
        save,
      );
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
      const made = panels(state)[section.id](state);
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
    const line = ([name, ...cells], tag) =>
      make(
        "tr",
        {},
        make("th", { scope: tag === "th" ? "col" : "row" }, name),
        ...cells.map((each) => make(tag, {}, cell(each))),
      );
    return make(
      "table",
      {},
      make("thead", {}, line(head, "th")),
      make("tbody", {}, ...rows.map((row) => line(row, "td"))),
    );
  }

  // The curves of a panel, a column each, in all digits.
  function csv(panel) {
    const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
    const plain = (axis, value) => (Number.isFinite(value) ? String(axis.powers ? 10 ** value : value) : "");
    const parts = tables[panel].map(({ x, y, curves }) => {
      const head = [x.label, ...curves.map((curve) => curve.name)].map(quoted).join(",");
      const rows = curves[0].points.map(([at], i) =>
        [plain(x, at), ...curves.map((curve) => plain(y, curve.points[i][1]))].join(","),
      );
      return [head, ...rows].join("\n");
    });
    return `${parts.join("\n\n")}\n`;
  }

  function download(panel) {
    const link = make("a", {
      href: URL.createObjectURL(new Blob([csv(panel)], { type: "text/csv" })),
      download: `${panel}.csv`,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  build();
  read();
  show();
  return { csv };
})();
