import BenchmarkSupport
import Glibc

// Whole commands as a user types them, side by side in one run, hot and with pauses.
let arguments = Array(CommandLine.arguments.dropFirst())
if arguments.count == 3, arguments[0] == RawFloor.argument {
  exit(RawFloor.serve(rootfs: arguments[1], directory: arguments[2]))
}
do {
  let options = try Options(arguments)
  let suite = try Suite(options)
  defer { suite.tearDown() }
  try suite.run()
} catch {
  let line = Array("engine-benchmarks: \(error)\n".utf8)
  _ = write(2, line, line.count)
  exit(1)
}
