// Two charts, drawn by uPlot. Lines differ in dash as well as in colour; the numbers are also in the legend and in a table.
"use strict";
(() => {
  const lookAgainMs = 10000;
  const dashes = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [1, 2]];
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dollars = (value) => value === null || value === undefined ? "—" : "$" + value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const perMinute = (value) => value === null || value === undefined ? "—" : value.toLocaleString("en-US", { maximumFractionDigits: 1 });

  const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 16);
  const moment = (seconds) => seconds === null || seconds === undefined ? "—" : new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ");
  // Within a day the hour is enough; over several days the day is what tells.
  const ticks = (plot, values) => {
    const days = plot.scales.x.max - plot.scales.x.min > 2 * 86400;
    return values.map((value) => days ? moment(value).slice(5, 10) : clock(value));
  };

  const options = (place, series, format) => ({
    width: Math.max(260, place.clientWidth),
    height: 240,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    series: [{ label: "UTC", value: (_, value) => moment(value) }, ...series.map(({ label, colour }, index) => ({
      label, stroke: style(colour), width: 2, dash: dashes[index % dashes.length], value: (_, value) => format(value),
      points: { show: false },
    }))],
    axes: [
      { stroke: style("--faint"), grid: { stroke: style("--rule"), width: 1 }, values: ticks },
      { stroke: style("--faint"), grid: { stroke: style("--rule"), width: 1 }, size: 70, values: (_, ticks) => ticks.map(format) },
    ],
    scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), (high ?? 0) > 0 ? high * 1.05 : 1] } },
  });

  const draw = (place, data, series, format, name) => {
    place.replaceChildren();
    if (data[0].length === 0) {
      place.textContent = "Nothing has moved yet.";
      return;
    }
    const plot = new uPlot(options(place, series, format), data, place);
    const canvas = plot.root.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", name);
  };

  const drawAll = (where, told) => {
    const find = (name) => where.querySelector(`[data-plot="${name}"]`);
    // One point draws no line: the step before it stood at nothing.
    const lead = told.times.length === 1 ? 1 : 0;
    const times = lead ? [told.times[0] - 60 * told.width_min, ...told.times] : told.times;
    const from = (numbers) => (lead ? [0, ...numbers] : numbers);
    const last = (numbers) => (numbers.length ? numbers[numbers.length - 1] : 0);
    draw(find("spend"), [times, from(told.charged_usd), from(told.held_usd)],
      [{ label: "Charged", colour: "--matched" }, { label: "Set aside", colour: "--in_doubt" }], dollars,
      `Dollars over time: ${dollars(last(told.charged_usd))} charged, ${dollars(last(told.held_usd))} set aside at the end`);
    const states = Object.keys(told.entered).filter((state) => told.entered[state].some((number) => number > 0));
    draw(find("jobs"), [times, ...states.map((state) => from(told.entered[state]))],
      states.map((state) => ({ label: state.replace("_", " "), colour: `--${state}` })), perMinute,
      `Jobs per minute over time, by the state they enter: ${states.map((state) => state.replace("_", " ")).join(", ") || "none"}`);
  };

  for (const where of document.querySelectorAll("[data-chart]")) {
    let told = null;
    let looked = 0;
    const look = async () => {
      looked = Date.now();
      try {
        const answer = await fetch(where.dataset.chart);
        if (answer.ok) { told = await answer.json(); drawAll(where, told); }
      } catch { /* the page says by itself that nobody answers; the last chart stays */ }
    };
    let resized = null;
    new ResizeObserver(() => { clearTimeout(resized); resized = setTimeout(() => told && drawAll(where, told), 200); }).observe(where);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => told && drawAll(where, told));
    document.addEventListener("ledger:looked", () => { if (Date.now() - looked > lookAgainMs) look(); });
    look();
  }
})();
