import Contracts
import Wire

/// `inspect --timings`: how the start of containers went, step by step.
enum TimingsCommand {
  static func run(_ invocation: borrowing Invocation) throws -> Int32 {
    let type = invocation.options.string("type") ?? ""
    guard type.isEmpty || type == "container" else {
      throw Failure("--timings is about containers: leave out --type \(type)")
    }
    let format = try OutputFormat(invocation.options.string("format"))
    var client = try Engine.connect(invocation.global)
    var starts: [ContainerTimings.Reply] = []
    var complaints: [String] = []
    for name in invocation.arguments {
      do {
        starts.append(try client.request(ContainerTimings(container: name)))
      } catch {
        complaints.append(Reports.line(error))
        if error.code == .unavailable { break }
      }
    }
    switch format {
    case .table, .tableTemplate:
      Console.out(starts.map { TimingsText.table($0) }.joined(separator: "\n"))
    case .json:
      Console.line(JSONText.write(.array(starts.map(TimingsText.value))))
    case .template(let template):
      do {
        for start in starts {
          Console.line(try template.render(TimingsText.value(start), strictness: .keys(maps: [])))
        }
      } catch {
        throw Failure("template parsing error: \(error)")
      }
    }
    for complaint in complaints { Console.error(complaint) }
    return complaints.isEmpty ? 0 : 1
  }
}
