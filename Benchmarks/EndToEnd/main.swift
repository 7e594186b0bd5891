import Glibc

// Whole commands as a user types them, side by side in one run, hot and with pauses.
do {
  let options = try Options(Array(CommandLine.arguments.dropFirst()))
  let suite = try Suite(options)
  defer { suite.tearDown() }
  try suite.run()
} catch {
  let line = Array("engine-benchmarks: \(error)\n".utf8)
  _ = write(2, line, line.count)
  exit(1)
}
