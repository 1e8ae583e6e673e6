"use strict";
// Reads every plot at the time under the pointer, and looks closer at a span of it. The curves are
// read back from the drawn paths: `data-low` and `data-high` of an SVG say what its height spans.
(() => {
  const WIDTH = 20000, HEIGHT = 10000;
  const start = +document.body.dataset.start, end = +document.body.dataset.end;
  const all = (selector, root) => [...(root || document).querySelectorAll(selector)];
  let view = [start, end];
  let pinned = null;

  // Points of a path that plot.path() wrote: "M x y l dx dy dx dy ...".
  function points(path) {
    const x = [], y = [];
    for (const piece of path.getAttribute("d").split("M").slice(1)) {
      const [move, steps] = piece.split("l");
      let [px, py] = move.trim().split(" ").map(Number);
      if (x.length) { x.push(NaN); y.push(NaN); }
      const numbers = steps.trim().split(" ").map(Number);
      for (let i = 0; i < numbers.length; i += 2) {
        px += numbers[i]; py += numbers[i + 1];
        x.push(px); y.push(py);
      }
    }
    return { x, y };
  }

  // Index of the point nearest to `at`; gaps are not found.
  function nearest(x, at) {
    let low = 0, high = x.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      const value = Number.isNaN(x[middle]) ? x[middle + 1] : x[middle];
      if (value < at) low = middle + 1; else high = middle;
    }
    let best = -1;
    for (const i of [low - 1, low, low + 1])
      if (x[i] !== undefined && !Number.isNaN(x[i]) &&
          (best < 0 || Math.abs(x[i] - at) < Math.abs(x[best] - at))) best = i;
    return best;
  }

  function shown(value) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e5 || size < 1e-4 ? value.toExponential(1) : size >= 100 ? value.toFixed(0)
      : size >= 10 ? value.toFixed(1) : size >= 1 ? value.toFixed(2) : value.toFixed(3);
  }

  function clock(seconds, digits) {
    if (end < 120) return seconds.toFixed(digits) + " s";
    const minutes = Math.floor(seconds / 60), rest = (seconds - 60 * minutes).toFixed(digits);
    return minutes + ":" + (rest.split(".")[0].length < 2 ? "0" + rest : rest);
  }

  const plots = all(".area.timed").map((area) => {
    const hair = area.appendChild(document.createElement("div"));
    hair.className = "hair";
    hair.hidden = true;
    const svg = area.querySelector("svg"), figure = area.closest(".plot");
    return {
      area, hair, svg, curves: null,
      low: +svg.dataset.low, high: +svg.dataset.high,
      outputs: figure ? all(".key output", figure) : [],
      note: figure && figure.classList.contains("small") ? figure.querySelector(".note") : null,
    };
  });
  for (const plot of plots) if (plot.note) plot.said = plot.note.textContent;
  const lanes = all(".lane").map((lane) => ({
    name: lane.querySelector("b").textContent, rects: all("rect", lane),
  }));
  const views = all(".view").map((figure) => {
    const area = figure.querySelector(".area"), path = figure.querySelector("path.way");
    const dot = area.appendChild(document.createElement("div"));
    dot.className = "dot";
    dot.hidden = true;
    return { path, dot, box: figure.querySelector("svg").viewBox.baseVal, data: null };
  });
  const moments = all(".moment"), readout = document.querySelector(".readout");

  function show(time) {
    const at = ((time - start) / (end - start)) * WIDTH;
    const left = (100 * (time - view[0])) / (view[1] - view[0]) + "%";
    for (const plot of plots) {
      if (!plot.area.offsetParent) continue;
      plot.hair.hidden = false;
      plot.hair.style.left = left;
      if (!plot.curves) plot.curves = all("path.line", plot.svg).map(points);
      plot.curves.forEach((curve, index) => {
        const i = nearest(curve.x, at);
        // Further than this from a point there is no value: a gap.
        const near = i >= 0 && Math.abs(curve.x[i] - at) < Math.max(WIDTH / 200, (0.15 / (end - start)) * WIDTH);
        const value = near ? plot.low + (plot.high - plot.low) * (1 - curve.y[i] / HEIGHT) : null;
        const text = value === null ? "–" : shown(Math.abs(value) < (plot.high - plot.low) / HEIGHT ? 0 : value);
        if (plot.outputs[index]) plot.outputs[index].textContent = text;
        if (plot.note) plot.note.textContent = text;
      });
    }
    for (const one of views) {
      if (!one.data) one.data = { ...points(one.path), t: one.path.dataset.t.split(" ").map(Number) };
      // Between two points of the way it went straight and evenly.
      const { t, x, y } = one.data;
      let i = nearest(t, 1000 * time);
      one.dot.hidden = i < 0;
      if (i < 0) continue;
      if (t[i] > 1000 * time && i > 0) i--;
      const next = Math.min(i + 1, t.length - 1);
      const share = Math.min(Math.max((1000 * time - t[i]) / (t[next] - t[i] || 1), 0), 1);
      one.dot.style.left = (100 * (x[i] + share * (x[next] - x[i]))) / one.box.width + "%";
      one.dot.style.top = (100 * (y[i] + share * (y[next] - y[i]))) / one.box.height + "%";
    }
    const i = nearest(moments.map((moment) => +moment.dataset.t), 1000 * time);
    moments.forEach((moment, index) => moment.classList.toggle("now", index === i));
    const said = lanes.map((lane) => {
      const rect = lane.rects.find((one) => {
        const x = +one.getAttribute("x");
        return x <= at && at <= x + +one.getAttribute("width");
      });
      return rect ? rect.dataset.name : null;
    }).filter((name) => name);
    const digits = end - start < 60 ? 3 : 2;
    readout.replaceChildren();
    const b = document.createElement("b");
    b.textContent = clock(time, digits);
    readout.append(b, ...said.map((name) => {
      const span = document.createElement("span");
      span.textContent = name;
      return span;
    }));
    if (view[0] > start || view[1] < end) {
      const button = document.createElement("button");
      button.textContent = "see all";
      button.onclick = () => { look(start, end); show(time); };
      readout.append(button);
    }
    readout.hidden = false;
    document.body.classList.add("reading");
  }

  function hide() {
    for (const plot of plots) {
      plot.hair.hidden = true;
      plot.outputs.forEach((output) => { output.textContent = ""; });
      if (plot.note) plot.note.textContent = plot.said;
    }
    for (const one of views) one.dot.hidden = true;
    moments.forEach((moment) => moment.classList.remove("now"));
    readout.hidden = true;
    document.body.classList.remove("reading");
  }

  // Shows the time from `low` to `high` in each plot.
  function look(low, high) {
    view = [Math.max(low, start), Math.min(high, end)];
    const scale = WIDTH / (end - start);
    const x = (view[0] - start) * scale, width = (view[1] - view[0]) * scale;
    for (const plot of plots) plot.svg.setAttribute("viewBox", `${x} 0 ${width} ${HEIGHT}`);
    const length = view[1] - view[0];
    let step = 10 ** Math.floor(Math.log10(length / 10));
    step *= [1, 2, 5, 10].find((factor) => length / (step * factor) <= 10);
    if (length >= 120) step = [20, 30, 60, 120, 300, 600, 900, 1800].find((s) => length / s <= 10) || 3600;
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    for (const labels of all(".xs.clock")) {
      labels.replaceChildren();
      for (let i = Math.ceil(view[0] / step - 1e-9); i * step <= view[1] + 1e-9; i++) {
        const span = document.createElement("span");
        span.textContent = clock(i * step, digits);
        span.style.left = (100 * (i * step - view[0])) / length + "%";
        if (labels.children.length % 2) span.className = "odd";
        labels.append(span);
      }
    }
  }

  function timeAt(area, event) {
    const box = area.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    return view[0] + share * (view[1] - view[0]);
  }

  for (const { area } of plots) {
    let from = null, mark = null;
    area.addEventListener("pointermove", (event) => {
      if (mark) {
        const to = timeAt(area, event), length = view[1] - view[0];
        mark.style.left = (100 * (Math.min(from, to) - view[0])) / length + "%";
        mark.style.width = (100 * Math.abs(to - from)) / length + "%";
      }
      if (pinned === null) show(timeAt(area, event));
    });
    area.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse") { pinned = null; show(timeAt(area, event)); return; }
      if (event.button !== 0) return;
      from = timeAt(area, event);
      mark = area.appendChild(document.createElement("div"));
      mark.className = "zoom";
      area.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    area.addEventListener("pointerup", (event) => {
      if (!mark) return;
      mark.remove();
      mark = null;
      const to = timeAt(area, event), length = view[1] - view[0];
      if (Math.abs(to - from) > 0.01 * length) {
        look(Math.min(from, to), Math.max(from, to));
        show(to);
      } else {
        pinned = pinned === null ? to : null;
        show(to);
      }
    });
    area.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && pinned === null && !mark) hide();
    });
    area.addEventListener("dblclick", () => { pinned = null; look(start, end); });
  }
  for (const moment of moments) moment.addEventListener("click", () => {
    pinned = moment.classList.contains("now") && pinned !== null ? null : moment.dataset.t / 1000;
    if (pinned === null) hide(); else show(pinned);
  });
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") { pinned = null; look(start, end); hide(); }
    if (!step || pinned === null) return;
    pinned = Math.min(Math.max(pinned + (step * (view[1] - view[0])) / 200, view[0]), view[1]);
    show(pinned);
    event.preventDefault();
  });
  addEventListener("beforeprint", hide);
})();
