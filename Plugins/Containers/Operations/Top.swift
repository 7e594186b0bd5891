import Contracts
import Kernel

extension Lifecycle {
  func top(_ request: ContainerTop, _ call: Call) async throws(EngineError) -> ContainerTop.Reply {
    let entry = try table.find(request.container)
    guard entry.isRunning else { throw EngineError(.conflict, "container \(entry.id) is not running") }
    let listing = try ProcessListing(request.arguments)
    let processes = try await call.request(ResourceProcesses(container: entry.id))
    return listing.table(of: Set(processes).sorted())
  }
}
