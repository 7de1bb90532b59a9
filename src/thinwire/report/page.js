"use strict";
(() => {
  if (!window.Plotly) {
    document.getElementById("missing").hidden = false;
    return;
  }
  const panels = JSON.parse(document.getElementById("panels").textContent);
  const hidden = new Set();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = {
    responsive: true,
    displaylogo: false,
    // None that talks to a server.
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d"]],
  };

  // The style sheet is the one home of the colours.
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const faint = (hex, alpha) => {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${r},${g},${b},${alpha})`;
  };

  const paintTrace = (trace) => {
    const own = colour(`--m${trace.meta.slot}`);
    trace.visible = !hidden.has(trace.meta.slot);
    if (trace.meta.part === "band") {
      trace.fillcolor = faint(own, dark.matches ? 0.22 : 0.14);
    } else {
      trace.line.color = own;
      trace.marker.color = own;
      if (trace.error_y) trace.error_y.color = own;
    }
  };

  const paintLayout = (layout) => {
    const [ink, soft, rule, grid, surface] = ["--ink", "--soft", "--rule", "--grid", "--surface"].map(colour);
    layout.font.color = soft;
    layout.font.family = getComputedStyle(document.body).fontFamily;
    for (const axis of [layout.xaxis, layout.yaxis]) {
      Object.assign(axis, { gridcolor: grid, linecolor: rule, tickcolor: rule, showline: true, zeroline: false });
      axis.title.font = { size: 13, color: soft };
    }
    layout.hoverlabel = { bgcolor: surface, bordercolor: rule, font: { color: ink }, align: "left" };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink };
    for (const shape of layout.shapes || []) shape.line.color = soft;
    for (const note of layout.annotations || []) note.font.color = ink;
    // On a touch screen a drag must scroll the page.
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
  };

  // Plotly makes its figure as tall as its place when the window changes: the place must be as tall as the figure.
  panels.forEach((panel, index) => {
    document.getElementById(`plot-${index}`).style.height = `${panel.layout.height}px`;
  });

  const draw = () => {
    panels.forEach((panel, index) => {
      panel.data.forEach(paintTrace);
      paintLayout(panel.layout);
      Plotly.react(`plot-${index}`, panel.data, panel.layout, config);
    });
  };

  const all = document.querySelector(".chip.all");
  const none = document.querySelector(".chip.none");
  const chips = [...document.querySelectorAll(".chip[data-slot]")];
  const show = () => {
    for (const chip of chips) chip.setAttribute("aria-pressed", String(!hidden.has(Number(chip.dataset.slot))));
    all.hidden = hidden.size === 0;
    none.hidden = hidden.size === chips.length;
    draw();
  };
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      const slot = Number(chip.dataset.slot);
      if (!hidden.delete(slot)) hidden.add(slot);
      show();
    });
  }
  all.addEventListener("click", () => {
    hidden.clear();
    show();
  });
  none.addEventListener("click", () => {
    for (const chip of chips) hidden.add(Number(chip.dataset.slot));
    show();
  });
  for (const button of document.querySelectorAll(".save")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const plot = document.getElementById(`plot-${button.dataset.plot}`);
      const { width, height } = plot.getBoundingClientRect();
      Plotly.downloadImage(plot, { format: "svg", filename: button.dataset.name, width, height });
    });
  }
  dark.addEventListener("change", draw);
  draw();
})();
