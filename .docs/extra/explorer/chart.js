// A chart of a few curves in SVG: axes, ticks, a key, and the values under the pointer. Colours are those of the page.
"use strict";

const chart = (() => {
  const DASHES = ["", "8 4", "2 3", "9 3 2 3"];
  let count = 0;
  const MARGIN = { left: 62, right: 14, top: 10, bottom: 40 };

  function element(name, attributes = {}, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  const raised = (n) => [...String(n)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("");

  // A number as it is read: six digits, powers of ten for the very large and small.
  function written(x, digits = 6) {
    if (!Number.isFinite(x)) return Number.isNaN(x) ? "none" : x > 0 ? "∞" : "−∞";
    const size = Math.abs(x);
    if (x !== 0 && (size >= 1e6 || size < 1e-4)) {
      const [mantissa, power] = x.toExponential(digits - 1).split("e");
      const short = String(Number(mantissa)).replace("-", "−");
      return `${short === "1" ? "" : `${short}·`}10${raised(Number(power))}`;
    }
    return String(Number(x.toPrecision(digits))).replace("-", "−");
  }

  // Ticks of an axis from low to high; on one of powers low and high are exponents.
  function ticks(low, high, powers, most) {
    if (powers && high - low < 2) {
      const found = [];
      for (let k = Math.floor(low); k <= high; k++) {
        for (const digit of high - low < 0.5 ? [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8] : [1, 2, 5]) {
          const at = k + Math.log10(digit);
          if (at >= low && at <= high) found.push({ at, text: written(Number((10 ** at).toPrecision(3))) });
        }
      }
      if (found.length > 1) return found;
    }
    const steps = powers ? [1, 2, 5] : [1, 2, 2.5, 5];
    let size = powers ? 1 : 10 ** Math.floor(Math.log10((high - low) / most));
    let step = size;
    for (let i = 0; (high - low) / step > most; i++) {
      step = size * steps[i % steps.length];
      if (i % steps.length === steps.length - 1) size *= 10;
    }
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
    return found.map((at) => ({
      at,
      text: powers ? `10${raised(Math.round(at))}` : written(Number(at.toPrecision(12))),
    }));
  }

  function extent(values, powers) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) if (Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
    if (!(low <= high)) return [0, 1];
    const pad = high > low ? 0.04 * (high - low) : powers ? 0.5 : Math.max(1e-3, 0.1 * Math.abs(high));
    return [low - pad, high + pad];
  }

  // `x`, `y`: {label, powers}, with log10 of the values in the curves where powers is true; `y.range` bounds what is shown.
  // `curves`: [{name, points: [[x, y], ...], look}]; `marks`: [{at, text}], vertical lines.
  function draw(host, { title, x, y, curves, marks = [] }) {
    const width = Math.max(260, host.clientWidth);
    const height = Math.round(Math.min(340, Math.max(230, 0.6 * width)));
    const root = element("svg", {
      class: "chart",
      viewBox: `0 0 ${width} ${height}`,
      height,
      role: "img",
      "aria-label": title,
    });
    const clip = `inside-${count++}`;
    const points = curves.flatMap((curve) => curve.points);
    const xs = points.map((point) => point[0]);
    const [left, right] = [Math.min(...xs), Math.max(...xs)];
    const [low, high] =
      y.range ??
      extent(
        points.map((point) => point[1]),
        y.powers,
      );
    const px = (value) => MARGIN.left + ((value - left) / (right - left || 1)) * (width - MARGIN.left - MARGIN.right);
    const py = (value) =>
      height - MARGIN.bottom - ((value - low) / (high - low)) * (height - MARGIN.top - MARGIN.bottom);
    const [bottom, end] = [height - MARGIN.bottom, width - MARGIN.right];
    const inside = { x: MARGIN.left, y: MARGIN.top, width: end - MARGIN.left, height: bottom - MARGIN.top };
    const window = element("clipPath", { id: clip });
    window.append(element("rect", inside));
    root.append(window);
    root.append(element("path", { class: "axis", d: `M${MARGIN.left} ${MARGIN.top}V${bottom}H${end}` }));
    for (const { at, text } of ticks(left, right, x.powers, width < 500 ? 4 : 8)) {
      root.append(element("path", { class: "axis", d: `M${px(at)} ${bottom}v4` }));
      root.append(element("text", { x: px(at), y: bottom + 17, "text-anchor": "middle" }, text));
    }
    for (const { at, text } of ticks(low, high, y.powers, 6)) {
      root.append(element("path", { class: "axis", d: `M${MARGIN.left} ${py(at)}H${end}`, opacity: 0.5 }));
      root.append(element("text", { x: MARGIN.left - 6, y: py(at) + 4, "text-anchor": "end" }, text));
    }
    root.append(element("text", { x: (MARGIN.left + end) / 2, y: height - 5, "text-anchor": "middle" }, x.label));
    const middle = (MARGIN.top + bottom) / 2;
    root.append(
      element("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, y.label),
    );
    for (const { at, text } of marks.filter((mark) => mark.at >= left && mark.at <= right)) {
      root.append(element("path", { class: "mark", d: `M${px(at)} ${MARGIN.top}V${bottom}` }));
      const [side, anchor] = px(at) > width / 2 ? [-4, "end"] : [4, "start"];
      root.append(element("text", { x: px(at) + side, y: MARGIN.top + 10, "text-anchor": anchor }, text));
    }
    const key = document.createElement("ul");
    key.className = "key";
    curves.forEach(({ name, points, look }, index) => {
      const style = `stroke: var(--c${(look ?? index) % 4})`;
      const dash = DASHES[(look ?? index) % 4];
      let path = "";
      let pen = "M";
      for (const [a, b] of points) {
        const drawn = Number.isFinite(b);
        if (drawn) path += `${pen}${px(a).toFixed(2)} ${Math.max(-1e4, Math.min(1e4, py(b))).toFixed(2)}`;
        pen = drawn ? "L" : "M";
      }
      const curve = {
        class: "curve",
        d: path || "M0 0",
        style,
        "stroke-dasharray": dash,
        "clip-path": `url(#${clip})`,
      };
      root.append(element("path", curve));
      const sample = element("svg", { "aria-hidden": "true" });
      sample.append(element("path", { class: "curve", d: "M0 5H34", style, "stroke-dasharray": dash }));
      const item = document.createElement("li");
      item.append(sample, name);
      key.append(item);
    });
    const probe = element("path", { class: "probe", d: "M0 0", visibility: "hidden" });
    root.append(probe);
    const read = document.createElement("p");
    read.className = "read";
    const value = (axis, number) => written(axis.powers ? 10 ** number : number, 4);
    root.addEventListener("pointermove", (event) => {
      const box = root.getBoundingClientRect();
      const at =
        left +
        ((((event.clientX - box.left) / box.width) * width - MARGIN.left) / (end - MARGIN.left)) * (right - left);
      if (!(at >= left && at <= right)) return;
      probe.setAttribute("d", `M${px(at)} ${MARGIN.top}V${bottom}`);
      probe.setAttribute("visibility", "visible");
      const near = (points) =>
        points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
      const texts = curves.map(({ name, points }) => `${name}: ${value(y, near(points)[1])}`);
      read.textContent = `${x.symbol ?? x.label} = ${value(x, at)} · ${texts.join(" · ")}`;
    });
    root.addEventListener("pointerleave", () => {
      probe.setAttribute("visibility", "hidden");
      read.textContent = "";
    });
    host.replaceChildren(root, key, read);
  }

  return { draw, written };
})();
