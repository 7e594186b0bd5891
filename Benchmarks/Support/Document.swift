/// A page that needs nothing from elsewhere: no scripts, no fonts, charts as inline SVG.
package enum Document {
  package static func html(title: String, body: String) -> String {
    """
    <!doctype html>
    <html lang="en"><head><meta charset="utf-8"><title>\(escaped(title))</title>
    <meta name="viewport" content="width=device-width">
    <style>
    :root { color-scheme: light dark; --ink: #1e293b; --faint: #94a3b8; --paper: #fff; --line: #e2e8f0; }
    @media (prefers-color-scheme: dark) { :root { --ink: #e2e8f0; --paper: #0f172a; --line: #334155; } }
    body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
      max-width: 60em; margin: 2em auto; padding: 0 1em; }
    h2 { margin-top: 2em; border-bottom: 1px solid var(--line); }
    svg { width: 100%; height: auto; } svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
    table { border-collapse: collapse; } td, th { padding: .15em .8em; text-align: right;
      border-bottom: 1px solid var(--line); } td:first-child, th:first-child { text-align: left; }
    </style></head><body>
    \(body)</body></html>

    """
  }

  package static func escaped(_ text: String) -> String {
    var result = ""
    for character in text {
      switch character {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      default: result.append(character)
      }
    }
    return result
  }
}
