"use strict";
// Curves as SVG: axes, smoothing, and a cursor that a range input moves. Nothing of a run is ever
// read as HTML: texts become text nodes and attributes.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 720, HEIGHT = 320, LEFT = 64, RIGHT = 14, TOP = 12, BOTTOM = 40;

function element(name, attributes, ...children) {
  const made = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  for (const child of children) made.append(child);
  return made;
}

function shortNumber(value) {
  if (!Number.isFinite(value)) return "none";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e15)) return value.toExponential(2).replace(/\.?0+e/, "e");
  for (const [unit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]])
    if (size >= unit) return String(Number((value / (unit === 1e4 ? 1e3 : unit)).toPrecision(4))) + name;
  return String(Number(value.toPrecision(5)));
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
    ticks: (count) => (logarithmic ? logTicks(low, high) : linearTicks(low, high, count)),
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
    this.svg = element("svg:svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img"});
    this.cursor = element("input", {type: "range", min: 0, max: 1000, value: 1000, "aria-label": "position on the curves of: " + spec.title});
    this.output = element("output", {});
    this.figure = element("figure", {"aria-labelledby": "chart-" + number}, this.title, this.svg, this.cursor, this.output);
    this.cursor.addEventListener("input", () => this.showValues());
    this.svg.addEventListener("pointermove", (event) => this.follow(event));
  }

  follow(event) {
    if (!this.xScale) return;
    const box = this.svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    this.cursor.value = String(Math.round(1000 * Math.min(1, Math.max(0, (at - LEFT) / (WIDTH - LEFT - RIGHT)))));
    this.showValues();
  }

  draw(state) {
    this.state = state;
    this.svg.replaceChildren();
    const shown = this.runs.map((run, index) => ({run, index, line: lineOf(run, this.spec, state.x)}))
      .filter(({index, line}) => line && state.visible[index]);
    for (const one of shown) one.smooth = this.spec.smooth ? smoothed(one.line.mean, state.smoothing) : one.line.mean;
    this.shown = shown;
    this.xScale = scale(shown.flatMap(({line}) => line.x), LEFT, WIDTH - RIGHT, false);
    this.yScale = scale(shown.flatMap(({line}) => line.mean), HEIGHT - BOTTOM, TOP, state.logarithmic && this.spec.log);
    if (!this.xScale || !this.yScale) {
      this.svg.append(element("svg:text", {x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle"}, "no numbers to show"));
      this.svg.setAttribute("aria-label", this.spec.title + ": no numbers to show");
      this.output.textContent = "";
      return;
    }
    this.drawAxes(state);
    const clip = "clip-" + this.title.id;
    this.svg.append(element("svg:clipPath", {id: clip}, element("svg:rect", {x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM})));
    this.plot = element("svg:g", {"clip-path": `url(#${clip})`});
    this.svg.append(this.plot);
    for (const one of shown) this.drawRun(one, state);
    this.describe(shown);
    this.showValues();
  }

  drawAxes(state) {
    const right = WIDTH - RIGHT, bottom = HEIGHT - BOTTOM;
    for (const tick of this.yScale.ticks(5)) {
      const y = this.yScale.at(tick);
      this.svg.append(element("svg:line", {class: "grid", x1: LEFT, x2: right, y1: y, y2: y}),
        element("svg:text", {x: LEFT - 6, y: y + 4, "text-anchor": "end"}, shortNumber(tick)));
    }
    for (const tick of this.xScale.ticks(6))
      this.svg.append(element("svg:text", {x: this.xScale.at(tick), y: bottom + 16, "text-anchor": "middle"}, shortNumber(tick)));
    this.svg.append(element("svg:line", {class: "axis", x1: LEFT, x2: right, y1: bottom, y2: bottom}),
      element("svg:text", {x: right, y: HEIGHT - 6, "text-anchor": "end"}, {step: "step", time: "hours since the first step", tokens: "tokens"}[state.x]));
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
    const bottom = HEIGHT - BOTTOM;
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
    this.mark = element("svg:line", {class: "cursor", x1: this.xScale.at(x), x2: this.xScale.at(x), y1: TOP, y2: HEIGHT - BOTTOM});
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
