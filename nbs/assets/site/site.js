// What scrolls sideways can be reached from the keyboard; nothing else becomes a tab stop.
(() => {
  const mark = () => {
    // a formula in a line of text that is wider than the line gets a box of its own
    for (const formula of document.querySelectorAll("main math:not([display=block])")) {
      const line = formula.closest("p, li, td, dd, figcaption, summary");
      if (line && formula.parentElement.className !== "wide" && formula.getBoundingClientRect().width > line.clientWidth) {
        const box = document.createElement("span");
        box.className = "wide";
        formula.replaceWith(box);
        box.append(formula);
      }
    }
    for (const box of document.querySelectorAll(".wide, .scrolls, .equation, pre, .cell-output-display")) {
      if (box.scrollWidth > box.clientWidth + 1) {
        box.tabIndex = 0;
        if (!box.hasAttribute("role")) {
          box.setAttribute("role", "region");
          box.setAttribute("aria-label", "Scrolls sideways");
        }
      } else if (box.getAttribute("aria-label") === "Scrolls sideways") {
        box.removeAttribute("tabindex");
        box.removeAttribute("role");
        box.removeAttribute("aria-label");
      }
    }
  };
  // A link to a definition opens it.
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    let box = target;
    while (box) {
      if (box.tagName === "DETAILS") box.open = true;
      box = box.parentElement;
    }
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  addEventListener("resize", mark);
  addEventListener("toggle", mark, true);
  addEventListener("load", () => {
    open();
    mark();
  });
})();
