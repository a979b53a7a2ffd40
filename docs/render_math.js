// Render the formulas of a page, which pymdownx.arithmatex has marked, with KaTeX.
document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll(".arithmatex")) {
    const tex = element.textContent.trim().slice(2, -2) // without \( \) or \[ \]
    katex.render(tex, element, { displayMode: element.tagName === "DIV", throwOnError: false })
  }
})
