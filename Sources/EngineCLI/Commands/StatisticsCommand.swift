import Contracts
import Glibc
import Wire

/// `stats`: what containers use, once or again and again.
enum StatisticsCommand {
  static let all: [Command] = [
    Command(
      "stats", "container stats", usage: "[OPTIONS] [CONTAINER...]",
      summary: "Display a live stream of container(s) resource usage statistics", arguments: .atLeast(0),
      flags: {
        [
          .boolean("all", "a", "Show all containers (default shows just running)"),
          .string("format", nil, ListCommands.formatHelp),
          .boolean("no-stream", nil, "Disable streaming stats and only pull the first result"),
          .boolean("no-trunc", nil, "Do not truncate output"),
        ]
      }, run: run)
  ]

  private static let columns: [Listing.Column] = [
    .init("ID", "CONTAINER ID"), .init("Name", "NAME"), .init("CPUPerc", "CPU %"),
    .init("MemUsage", "MEM USAGE / LIMIT"), .init("MemPerc", "MEM %"), .init("NetIO", "NET I/O"),
    .init("BlockIO", "BLOCK I/O"), .init("PIDs", "PIDS"), .init("Container", "CONTAINER"),
  ]

  private typealias Sample = [ObjectID: ContainerStatistics.Reply]

  private static func run(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let format = try OutputFormat(options.string("format"))
    var client = try Engine.connect(invocation.global)
    let streams = !options.boolean("no-stream")
    var records = try find(invocation, &client)
    // How fast something grows is known only from two looks.
    var former = try look(&client, records)
    while true {
      sleep(1)
      if invocation.arguments.isEmpty { records = try find(invocation, &client) }
      let latest = try look(&client, records)
      let rows = records.map { row($0, former[$0.id], latest[$0.id], whole: options.boolean("no-trunc")) }
      let listing = Listing(
        rowType: "statsContext", columns: ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"],
        fields: columns, rows: rows)
      // The screen is cleared from its top, so that the lines stay where they are.
      if streams, case .table = format { Console.out("\u{1B}[H\u{1B}[J") }
      Console.out(try listing.text(format))
      if !streams { return 0 }
      former = latest
    }
  }

  private static func find(_ invocation: borrowing Invocation, _ client: inout Client) throws -> [ContainerRecord] {
    if invocation.arguments.isEmpty {
      return try client.request(ContainerList(all: invocation.options.boolean("all")))
    }
    var records: [ContainerRecord] = []
    for name in invocation.arguments { records.append(try client.request(ContainerInspect(container: name))) }
    return records
  }

  private static func look(_ client: inout Client, _ records: [ContainerRecord]) throws -> Sample {
    var sample: Sample = [:]
    for record in records {
      sample[record.id] = try? client.request(ContainerStatistics(container: record.id.text))
    }
    return sample
  }

  static func row(
    _ record: ContainerRecord, _ former: ContainerStatistics.Reply?, _ latest: ContainerStatistics.Reply?, whole: Bool
  ) -> [String: String] {
    var row = [
      "ID": whole ? record.id.text : record.id.short, "Container": record.id.short, "Name": record.name,
      "CPUPerc": "0.00%", "MemUsage": "0B / 0B", "MemPerc": "0.00%", "NetIO": "0B / 0B", "BlockIO": "0B / 0B",
      "PIDs": "0",
    ]
    guard let latest, latest.usage.memoryLimit > 0 else { return row }
    if let former, latest.time > former.time, latest.usage.cpuNanoseconds >= former.usage.cpuNanoseconds {
      let used = Double(latest.usage.cpuNanoseconds - former.usage.cpuNanoseconds)
      row["CPUPerc"] = percent(used / Double(latest.time - former.time))
    }
    let (memory, limit) = (latest.usage.memory, latest.usage.memoryLimit)
    row["MemUsage"] = "\(HumanText.binarySize(Int64(memory))) / \(HumanText.binarySize(Int64(limit)))"
    row["MemPerc"] = percent(Double(memory) / Double(limit))
    row["NetIO"] = "\(HumanText.size(Int64(latest.received))) / \(HumanText.size(Int64(latest.sent)))"
    row["PIDs"] = "\(latest.usage.pids)"
    return row
  }

  /// With two digits, as Docker prints it; several CPUs make more than 100.
  private static func percent(_ share: Double) -> String {
    let hundredths = Int64((share * 10_000).rounded())
    let rest = hundredths % 100
    return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)%"
  }
}
