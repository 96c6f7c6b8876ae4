// The device page's charts: columns from `series`, drawn by uPlot, extended as windows arrive.
"use strict";

(() => {
  const MOST = 2000;
  const CHARTS = {
    latency: { unit: "ms", series: [["p50_ms", "p50", "--ok"], ["p95_ms", "p95", "--live"]] },
    rate: { unit: "", series: [["rows_per_second", "rows/s", "--live"], ["failed", "failed", "--failing"]] },
  };

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const number = (value) => (value == null ? "–" : value.toLocaleString("en", { maximumSignificantDigits: 3 }));

  // 24 hours, the date where days are told apart, seconds where they matter.
  function clock(t, step) {
    const date = new Date(t * 1000);
    if (step >= 86400) return date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    return date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...(step < 60 && { second: "2-digit" }) });
  }

  // A line where another release took over, with its version.
  function releases(changes) {
    return {
      hooks: {
        draw: [(plot) => {
          const { ctx, bbox } = plot;
          ctx.save();
          ctx.strokeStyle = ctx.fillStyle = colour("--quiet");
          ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
          ctx.textAlign = "left";
          ctx.setLineDash([4, 4]);
          let right = -Infinity;
          for (const { t, version } of changes) {
            const x = Math.max(bbox.left, plot.valToPos(t, "x", true));
            if (x > bbox.left + bbox.width || plot.valToPos(t, "x", true) < bbox.left - 1) continue;
            ctx.beginPath();
            ctx.moveTo(x, bbox.top);
            ctx.lineTo(x, bbox.top + bbox.height);
            ctx.stroke();
            if (x > right) {
              ctx.fillText(version, x + 4, bbox.top + 12 * devicePixelRatio);
              right = x + ctx.measureText(version).width + 8;
            }
          }
          ctx.restore();
        }],
      },
    };
  }

  function options(kind, figure, changes) {
    const { unit, series } = CHARTS[kind];
    const axis = { stroke: colour("--text"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    return {
      width: figure.clientWidth - 30,
      height: 210,
      plugins: [releases(changes)],
      scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), (high || 1) * 1.1] } },
      axes: [{ ...axis, space: 90, values: (_, ticks, __, ___, step) => ticks.map((t) => clock(t, step)) }, { ...axis, size: 64, values: (_, ticks) => ticks.map((v) => `${number(v)}${unit && ` ${unit}`}`) }],
      series: [
        { label: "Time", value: (_, t) => (t == null ? "–" : new Date(t * 1000).toLocaleTimeString("en-GB")) },
        ...series.map(([, label, tone]) => ({
          label, stroke: colour(tone), width: 1.5, spanGaps: false, points: { show: false },
          value: (_, v) => `${number(v)}${v != null && unit ? ` ${unit}` : ""}`,
        })),
      ],
    };
  }

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.kind = figure.dataset.chart;
      this.names = ["t", ...CHARTS[this.kind].series.map(([name]) => name)];
      this.data = this.names.map(() => []);
      this.changes = [];
      this.plot = null;
    }

    take(columns) {
      this.names.forEach((name, i) => { this.data[i] = this.data[i].concat(columns[name]).slice(-MOST); });
      for (const one of columns.changes) {
        if (this.changes.at(-1)?.version !== one.version) this.changes.push(one);
      }
      if (this.plot) this.plot.setData(this.data);
      else this.draw();
    }

    draw() {
      this.plot?.destroy();
      const place = this.figure.querySelector(".plot");
      this.plot = new uPlot(options(this.kind, this.figure, this.changes), this.data, place);
    }
  }

  const charts = [...document.querySelectorAll("figure[data-chart]")].map((one) => new Chart(one));
  if (!charts.length) return;
  const url = new URL(charts[0].figure.dataset.series, location.href);
  let busy = false;

  async function load() {
    if (busy) return;
    busy = true;
    try {
      const answer = await fetch(url, { headers: { accept: "application/json" } });
      if (!answer.ok) return;
      const columns = await answer.json();
      if (columns.last_ms === null) return;
      url.searchParams.set("since_ms", columns.last_ms);
      for (const chart of charts) chart.take(columns);
    } catch {
      // the next change asks again
    } finally {
      busy = false;
    }
  }

  document.addEventListener("shoal:changed", (event) => { if (event.detail.includes("telemetry")) load(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((one) => one.plot && one.draw()));
  addEventListener("resize", () => charts.forEach((one) => one.plot?.setSize({ width: one.figure.clientWidth - 30, height: 210 })));
  load();
})();
