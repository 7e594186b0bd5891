import Contracts
import Glibc

// The daemon is told what to do by its arguments and its signals; everything it is made of stands in `Composition`.
let options: DaemonOptions
do {
  options = try DaemonOptions(parsing: Array(CommandLine.arguments.dropFirst()))
} catch {
  let line = Array("engined: \(error)\n".utf8)
  _ = write(2, line, line.count)
  exit(125)
}
switch options.errand {
case .checkConfiguration(let path): exit(DaemonConfiguration.check(path))
case .printConfiguration: exit(DaemonConfiguration.printStandard())
case .verify(let path): exit(Verification.run(path, options))
case nil: exit(Daemon.run(options))
}
