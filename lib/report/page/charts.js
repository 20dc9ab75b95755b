"use strict";
// Curves as SVG: axes, smoothing, and a cursor that a range input moves. Nothing of a run is ever
// read as HTML: texts become text nodes and attributes.
const SVG = "http://www.w3.org/2000/svg";
const LEFT = 64, RIGHT = 14, TOP = 12, BOTTOM = 40;

function element(name, attributes, ...children) {
  const made = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  for (const child of children) made.append(child);
  return made;
}

function shortNumber(value, digits = 5) {
  if (!Number.isFinite(value)) return "none";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e15)) return value.toExponential(Math.max(2, digits - 3)).replace(/\.?0+e/, "e");
  for (const [unit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]])
    if (size >= unit) return String(Number((value / (unit === 1e4 ? 1e3 : unit)).toPrecision(Math.max(4, digits - 1)))) + name;
  return String(Number(value.toPrecision(digits)));
}

// As many digits as tell neighbours apart: 11.8432 and 11.8436.
function labels(ticks) {
  let step = Infinity, size = 0;
  ticks.forEach((tick, i) => {
    size = Math.max(size, Math.abs(tick));
    if (i > 0) step = Math.min(step, tick - ticks[i - 1]);
  });
  const digits = Number.isFinite(step) && size > 0 ? Math.ceil(Math.log10(size / step)) + 2 : 5;
  return ticks.map((tick) => shortNumber(tick, Math.min(12, Math.max(5, digits))));
}

// Exponential moving average, corrected for its beginning. Holes stay holes.
function smoothed(values, weight) {
  if (weight === 0) return values;
  let sum = 0, mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const factors = decades < 1 ? [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9] : decades < 3 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil(decades / 8));
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); ++power) {
    if (factors.length === 1 && power % every !== 0) continue;
    for (const factor of factors) {
      const tick = factor * Math.pow(10, power);
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  }
  return ticks;
}

// A scale from values to pixels; `logarithmic` takes values above 0 alone.
function scale(values, from, to, logarithmic) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value === null || !Number.isFinite(value) || (logarithmic && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return null;
  if (low === high) {
    const room = logarithmic ? 0 : Math.abs(low) * 0.1 || 1;
    low = logarithmic ? low / 1.5 : low - room;
    high = logarithmic ? high * 1.5 : high + room;
  }
  const map = logarithmic ? Math.log10 : (value) => value;
  const begin = map(low), length = map(high) - begin;
  const at = (value) => from + (to - from) * (map(value) - begin) / length;
  return {
    low, high, logarithmic,
    at: (value) => (value === null || (logarithmic && value <= 0) ? null : at(value)),
    // Between two powers of ten there may be no round factor: then any round numbers.
    ticks: (count) => {
      const ticks = logarithmic ? logTicks(low, high) : [];
      return ticks.length > 2 ? ticks : linearTicks(low, high, count);
    },
  };
}

function linePath(xs, ys) {
  let path = "", pen = false;
  for (let i = 0; i < xs.length; ++i) {
    if (ys[i] === null || xs[i] === null) { pen = false; continue; }
    path += (pen ? "L" : "M") + xs[i].toFixed(1) + " " + ys[i].toFixed(1);
    pen = true;
  }
  return path;
}

function bandPath(xs, lows, highs) {
  const up = [], down = [];
  for (let i = 0; i < xs.length; ++i) {
    if (xs[i] === null || lows[i] === null || highs[i] === null) continue;
    up.push(xs[i].toFixed(1) + " " + highs[i].toFixed(1));
    down.push(xs[i].toFixed(1) + " " + lows[i].toFixed(1));
  }
  return up.length > 1 ? "M" + up.join("L") + "L" + down.reverse().join("L") + "Z" : "";
}

// The line of `run` in the chart of `spec`: {x, mean, low, high} or null.
function lineOf(run, spec, xName) {
  const holder = spec.evaluation ? run.evaluations[spec.set] : run;
  const series = holder && holder.series[spec.key];
  if (!series) return null;
  const factor = spec.factor || 1;
  const scaled = (values) => (factor === 1 ? values : values.map((value) => (value === null ? null : value * factor)));
  return {x: holder.x[xName], mean: scaled(series.mean), low: scaled(series.low || []), high: scaled(series.high || []),
          single: holder.x[xName].length === 1};
}

function nearest(xs, x) {
  let best = -1;
  for (let i = 0; i < xs.length; ++i)
    if (xs[i] !== null && (best < 0 || Math.abs(xs[i] - x) < Math.abs(xs[best] - x))) best = i;
  return best;
}

class Chart {
  constructor(spec, runs, number) {
    this.spec = spec;
    this.runs = runs;
    this.title = element("h3", {id: "chart-" + number}, spec.title + (spec.unit ? " (" + spec.unit + ")" : ""));
    this.svg = element("svg:svg", {role: "img"});
    this.cursor = element("input", {type: "range", min: 0, max: 1000, value: 1000, "aria-label": "position on the curves of: " + spec.title});
    this.output = element("output", {});
    this.figure = element("figure", {"aria-labelledby": "chart-" + number}, this.title, this.svg, this.cursor, this.output);
    this.cursor.addEventListener("input", () => this.showValues());
    this.svg.addEventListener("pointermove", (event) => this.follow(event));
  }

  // In the pixels of the page, so that what is written can be read in a narrow window too.
  fit() {
    this.width = this.svg.clientWidth || 720;
    this.height = Math.round(Math.min(320, Math.max(200, this.width * 0.45)));
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
  }

  follow(event) {
    if (!this.xScale) return;
    const box = this.svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * this.width;
    this.cursor.value = String(Math.round(1000 * Math.min(1, Math.max(0, (at - LEFT) / (this.width - LEFT - RIGHT)))));
    this.showValues();
  }

  resized() {
    if (this.state && this.svg.clientWidth !== this.width) this.draw(this.state);
  }

  draw(state) {
    this.state = state;
    this.fit();
    this.svg.replaceChildren();
    const shown = this.runs.map((run, index) => ({run, index, line: lineOf(run, this.spec, state.x)}))
      .filter(({index, line}) => line && state.visible[index]);
    for (const one of shown) one.smooth = this.spec.smooth ? smoothed(one.line.mean, state.smoothing) : one.line.mean;
    this.shown = shown;
    this.xScale = scale(shown.flatMap(({line}) => line.x), LEFT, this.width - RIGHT, false);
    this.yScale = scale(shown.flatMap(({line}) => line.mean), this.height - BOTTOM, TOP, state.logarithmic && this.spec.log);
    if (!this.xScale || !this.yScale) {
      this.svg.append(element("svg:text", {x: this.width / 2, y: this.height / 2, "text-anchor": "middle"}, "no numbers to show"));
      this.svg.setAttribute("aria-label", this.spec.title + ": no numbers to show");
      this.output.textContent = "";
      return;
    }
    this.drawAxes(state);
    const clip = "clip-" + this.title.id;
    this.svg.append(element("svg:clipPath", {id: clip}, element("svg:rect", {x: LEFT, y: TOP, width: this.width - LEFT - RIGHT, height: this.height - TOP - BOTTOM})));
    this.plot = element("svg:g", {"clip-path": `url(#${clip})`});
    this.svg.append(this.plot);
    for (const one of shown) this.drawRun(one, state);
    this.describe(shown);
    this.showValues();
  }

  drawAxes(state) {
    const right = this.width - RIGHT, bottom = this.height - BOTTOM;
    const yTicks = this.yScale.ticks(5), xTicks = this.xScale.ticks(Math.max(3, Math.floor((right - LEFT) / 70)));
    const yLabels = labels(yTicks), xLabels = labels(xTicks);
    yTicks.forEach((tick, i) => {
      const y = this.yScale.at(tick);
      this.svg.append(element("svg:line", {class: "grid", x1: LEFT, x2: right, y1: y, y2: y}),
        element("svg:text", {class: "y-label", x: LEFT - 6, y: y + 4, "text-anchor": "end"}, yLabels[i]));
    });
    xTicks.forEach((tick, i) =>
      this.svg.append(element("svg:text", {x: this.xScale.at(tick), y: bottom + 16, "text-anchor": "middle"}, xLabels[i])));
    this.svg.append(element("svg:line", {class: "axis", x1: LEFT, x2: right, y1: bottom, y2: bottom}),
      element("svg:text", {x: right, y: this.height - 6, "text-anchor": "end"}, {step: "step", time: "hours since the first step", tokens: "tokens"}[state.x]));
  }

  drawRun({run, index, line, smooth}, state) {
    const colour = index % 8, dash = Math.floor(index / 8) % 4;
    const xs = line.x.map((x) => (x === null ? null : this.xScale.at(x)));
    const ys = (values) => values.map((value) => this.yScale.at(value));
    if (line.low.length) this.plot.append(element("svg:path", {class: `band f${colour}`, d: bandPath(xs, ys(line.low), ys(line.high))}));
    if (smooth !== line.mean) this.plot.append(element("svg:path", {class: `raw s${colour}`, d: linePath(xs, ys(line.mean))}));
    this.plot.append(element("svg:path", {class: `curve s${colour} d${dash}`, d: linePath(xs, ys(smooth))}));
    if (this.spec.evaluation || line.single)
      ys(line.mean).forEach((y, i) => { if (y !== null && xs[i] !== null) this.plot.append(element("svg:circle", {class: `point f${colour}`, cx: xs[i], cy: y, r: 3})); });
    if (!this.spec.marks || state.x !== "step") return;
    const bottom = this.height - BOTTOM;
    for (const step of run.saves) {
      const x = this.xScale.at(step);
      this.plot.append(element("svg:path", {class: `save f${colour}`, d: `M${x} ${bottom - 9}l4 8h-8z`}, element("svg:title", {}, `${run.name}: checkpoint of step ${step}`)));
    }
    for (const step of run.restarts)
      this.plot.append(element("svg:line", {class: `restart s${colour}`, x1: this.xScale.at(step), x2: this.xScale.at(step), y1: TOP, y2: bottom},
        element("svg:title", {}, `${run.name}: started again behind step ${step}`)));
  }

  describe(shown) {
    const parts = shown.map(({run, line}) => {
      const numbers = line.mean.filter((value) => value !== null);
      return numbers.length ? `${run.name}: from ${shortNumber(numbers[0])} to ${shortNumber(numbers[numbers.length - 1])}` : `${run.name}: none`;
    });
    this.svg.setAttribute("aria-label", `${this.spec.title}: ${parts.join("; ")}`);
  }

  showValues() {
    if (!this.xScale || !this.yScale) return;
    const x = this.xScale.low + (this.xScale.high - this.xScale.low) * Number(this.cursor.value) / 1000;
    if (this.mark) this.mark.remove();
    this.mark = element("svg:line", {class: "cursor", x1: this.xScale.at(x), x2: this.xScale.at(x), y1: TOP, y2: this.height - BOTTOM});
    this.svg.append(this.mark);
    const texts = this.shown.map(({run, line, smooth}) => {
      const at = nearest(line.x, x);
      if (at < 0) return run.name + ": none";
      const value = line.mean[at] === null ? "none" : shortNumber(line.mean[at]);
      const mean = smooth !== line.mean && smooth[at] !== null ? ` (smoothed ${shortNumber(smooth[at])})` : "";
      return `${run.name} at ${shortNumber(line.x[at])}: ${value}${mean}`;
    });
    this.output.textContent = texts.join("; ");
    this.cursor.setAttribute("aria-valuetext", texts.join("; "));
  }
}
