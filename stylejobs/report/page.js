"use strict";
(() => {
  const figures = [...document.querySelectorAll("figure[data-item]")];
  const lightbox = document.getElementById("lightbox");
  const stage = lightbox.querySelector(".compare");
  let current = 0;

  const setCut = (compare, percent) => {
    const cut = Math.min(100, Math.max(0, percent));
    compare.style.setProperty("--cut", cut + "%");
    compare.querySelector("input").value = cut;
  };

  // A press that moves compares; a press that does not is a click.
  const makeComparable = (compare, onClick) => {
    const range = compare.querySelector("input");
    let pressedAt = null;
    let moved = false;
    const cutAt = (event) => {
      const box = compare.getBoundingClientRect();
      return (100 * (event.clientX - box.left)) / box.width;
    };
    range.addEventListener("input", () => setCut(compare, Number(range.value)));
    compare.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      pressedAt = event.clientX;
      moved = false;
      compare.setPointerCapture(event.pointerId);
      range.focus({ preventScroll: true, focusVisible: false });
    });
    compare.addEventListener("pointermove", (event) => {
      if (pressedAt === null) return;
      if (Math.abs(event.clientX - pressedAt) > 4) moved = true;
      if (moved) setCut(compare, cutAt(event));
    });
    compare.addEventListener("pointerup", (event) => {
      if (pressedAt !== null && !moved) onClick(cutAt(event));
      pressedAt = null;
    });
    compare.addEventListener("pointercancel", () => { pressedAt = null; });
  };

  const show = (index) => {
    current = (index + figures.length) % figures.length;
    const figure = figures[current];
    for (const part of ["result", "source"]) {
      const from = figure.querySelector("img." + part);
      const to = stage.querySelector("img." + part);
      to.src = from.src;
      to.alt = from.alt;
      to.setAttribute("width", from.getAttribute("width"));
      to.setAttribute("height", from.getAttribute("height"));
    }
    const words = ["strong", ".key", ".size"].map((name) => figure.querySelector("figcaption " + name).textContent.trim());
    document.getElementById("lightbox-text").textContent =
      [...words, current + 1 + " of " + figures.length].join("  ·  ");
    setCut(stage, 50);
  };

  const open = (index) => {
    show(index);
    lightbox.showModal();
    stage.querySelector("input").focus({ focusVisible: false });
  };

  figures.forEach((figure, index) => {
    makeComparable(figure.querySelector(".compare"), () => open(index));
    figure.querySelector("button.open").addEventListener("click", () => open(index));
  });
  makeComparable(stage, (cut) => setCut(stage, cut));
  document.getElementById("lightbox-close").addEventListener("click", () => lightbox.close());
  document.getElementById("lightbox-back").addEventListener("click", () => show(current - 1));
  document.getElementById("lightbox-next").addEventListener("click", () => show(current + 1));
  lightbox.addEventListener("click", (event) => {
    if (event.target === lightbox || event.target.classList.contains("stage")) lightbox.close();
  });
  lightbox.addEventListener("close", () => figures[current].querySelector("button.open").focus({ preventScroll: true }));
  lightbox.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(current + step);
  });
})();
