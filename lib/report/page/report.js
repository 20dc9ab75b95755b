// Builds the controls and the charts of the page from the numbers that stand in it.
(function () {
  const data = JSON.parse(document.getElementById("numbers").textContent);
  const runs = data.runs;

  // What is known of a key of metrics.jsonl; any other is drawn under its own name, after these.
  const KNOWN = [
    {key: "loss", title: "Loss", unit: "nats", log: true, smooth: true, marks: true},
    {key: "eval_loss", title: "Held-out loss", unit: "nats", log: true, evaluation: true},
    {key: "grad_norm", title: "Gradient norm", log: true, smooth: true},
    {key: "lr", title: "Learning rate"},
    {key: "tokens_per_second", title: "Throughput", unit: "tokens/s", smooth: true},
    {key: "tflops", title: "Model TFLOP/s of a rank", smooth: true},
    {key: "mfu", title: "Model FLOPs utilization", unit: "%", factor: 100, smooth: true},
    {key: "step_time_s", title: "Time of a step", unit: "s", log: true, smooth: true},
    {key: "peak_memory_bytes", title: "Peak memory of rank 0", unit: "GiB", factor: 1 / 1073741824},
  ];
  const NOT_DRAWN = new Set(["time", "tokens_seen", "epoch", "tokens_per_second_per_rank", "eval_perplexity", "eval_tokens"]);

  function allSpecs() {
    const specs = [];
    const known = new Set(KNOWN.map((spec) => spec.key));
    const others = {false: new Set(), true: new Set()};
    const sets = new Set(runs.flatMap((run) => Object.keys(run.evaluations)));
    const note = (series, evaluation) => Object.keys(series).forEach((key) => {
      if (!known.has(key) && !NOT_DRAWN.has(key) && !key.endsWith("/sequences") && !key.startsWith("phases/")) others[evaluation].add(key);
    });
    for (const run of runs) {
      note(run.series, false);
      for (const set of Object.values(run.evaluations)) note(set.series, true);
    }
    const add = (spec) => {
      if (!spec.evaluation) return specs.push(spec);
      for (const set of sets) specs.push({...spec, set, title: spec.title + (set ? ": " + set : "")});
    };
    KNOWN.forEach(add);
    others.true.forEach((key) => add({key, title: key, evaluation: true}));
    others.false.forEach((key) => add({key, title: key, smooth: true}));
    return specs.filter((spec) => runs.some((run) => lineOf(run, spec, "step")));
  }

  const state = {x: "step", smoothing: 0.6, logarithmic: true, visible: runs.map(() => true)};
  const charts = allSpecs().map((spec, number) => new Chart(spec, runs, number));
  document.getElementById("charts").append(...charts.map((chart) => chart.figure));
  const redraw = () => charts.forEach((chart) => chart.draw(state));
  window.addEventListener("resize", () => charts.forEach((chart) => chart.resized()));

  function choice(id, take) {
    const control = document.getElementById(id);
    control.addEventListener("input", () => { take(control); redraw(); });
  }
  choice("x-axis", (control) => { state.x = control.value; });
  choice("smoothing", (control) => {
    state.smoothing = Number(control.value) / 100;
    control.setAttribute("aria-valuetext", control.value + " percent");
  });
  choice("logarithmic", (control) => { state.logarithmic = control.checked; });
  document.querySelectorAll("input[data-run]").forEach((control) =>
    control.addEventListener("input", () => { state.visible[Number(control.dataset.run)] = control.checked; redraw(); }));

  const theme = document.getElementById("theme");
  const setTheme = (name) => {
    if (name === "light" || name === "dark") document.documentElement.dataset.theme = name;
    else delete document.documentElement.dataset.theme;
  };
  theme.addEventListener("input", () => setTheme(theme.value));
  document.getElementById("controls").hidden = false;
  redraw();
})();
