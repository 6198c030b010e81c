// Draws each figure when it comes near the view, all of them before printing.
(() => {
  "use strict";
  const axis = {
    automargin: true, zeroline: false, gridcolor: "#8884", linecolor: "#888", tickcolor: "#888",
    showline: true, ticks: "outside", ticklen: 4,
  };
  const template = {
    layout: {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: "#666" },
      margin: { l: 48, r: 12, t: 12, b: 36 }, hovermode: "closest",
      hoverlabel: { bgcolor: "#22272e", bordercolor: "#22272e", font: { color: "#fff" } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
      xaxis: axis, yaxis: axis,
    },
  };
  const coarse = matchMedia("(pointer: coarse)").matches;
  const config = { responsive: true, displayModeBar: false };
  const draw = (area) => {
    if (area.dataset.drawn) return;
    area.dataset.drawn = "yes";
    const { data, layout } = JSON.parse(area.nextElementSibling.textContent);
    area.textContent = "";
    // A finger on a figure should scroll the page.
    if (coarse) layout.dragmode = false;
    Plotly.newPlot(area, data, { template, ...layout }, config);
  };
  const areas = [...document.querySelectorAll(".plot-area")];
  const watch = new IntersectionObserver(
    (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => {
      watch.unobserve(e.target);
      draw(e.target);
    }),
    { rootMargin: "600px" },
  );
  areas.forEach((area) => watch.observe(area));

  const folded = [];
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details:not([open])").forEach((d) => {
      folded.push(d);
      d.open = true;
    });
    // 680 px: the text width of a printed A4 or letter page; beside a drawing, its larger part.
    areas.forEach((area) => {
      draw(area);
      Plotly.relayout(area, { width: area.closest(".panels") ? 385 : 680 });
    });
  });
  addEventListener("afterprint", () => {
    folded.splice(0).forEach((d) => { d.open = false; });
    areas.forEach((area) => Plotly.relayout(area, { width: null, autosize: true }));
  });
})();
